"""The agent's settings as frozen, typed values. Reading them from a file is `config.load`'s part."""

import codecs
import re
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config.countries import known_country
from config.privacy import MAX_PATTERN_LENGTH, MAX_PATTERNS, MaskKind, compile_pattern

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# Byte sets that hold ASCII, one byte a letter, as Python names them.
_ONE_BYTE = re.compile(r"cp(125[0-8]|437|85[0-8]|86[0-3]|866|874)|iso8859-\d+|koi8-[ru]|mac-\w+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MARIADB_URL = "use mariadb://user@host:3306/database"


def is_plain_name(value: str) -> bool:
    """Whether a site, a PBX, a tenant or a service can be called so."""
    return _NAME.fullmatch(value) is not None


def _plain_name(value: str) -> str:
    if not is_plain_name(value):
        raise ValueError("use 1 to 63 lower-case letters, digits, '.', '_' or '-', starting with a letter or digit")
    return value


def _one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not hold line ends or other control characters")
    return value


def _host(value: str) -> str:
    try:
        is_host = not re.search(r"\s", _one_line(value)) and bool(value.encode("idna"))
    except UnicodeError:
        is_host = False
    if not is_host:
        raise ValueError(
            "this is no host; write a name as pbx.example.com, labels of at most 63 letters, or an address"
        )
    return value


def _one_line_secret(value: SecretStr) -> SecretStr:
    _one_line(value.get_secret_value())
    return value


def _beside_settings(value: Path, info: ValidationInfo) -> Path:
    return Path(info.context["directory"], value) if info.context else value


# A relative path starts where the settings file is.
FilePath = Annotated[Path, AfterValidator(_beside_settings)]
# Text that goes into a line-based protocol.
Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
# A host's name or address, such as can be looked up.
Host = Annotated[str, Field(min_length=1), AfterValidator(_host)]
Secret = Annotated[SecretStr, Field(min_length=1), AfterValidator(_one_line_secret)]


def _dialled(value: str) -> str:
    if not re.fullmatch(r"\+?[0-9*#]+", value):
        raise ValueError("write the number as it is dialled, digits only, without spaces, brackets or dashes")
    return value


def _encoding(value: str) -> str:
    try:
        name = codecs.lookup(value).name
    except (LookupError, ValueError):
        name = ""
    if not _ONE_BYTE.fullmatch(name):
        raise ValueError("write a Windows or ISO byte set, as cp1254 (Turkish), cp1252 (Western) or iso-8859-2")
    return name


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("this is no time zone; write one of the IANA database, as Europe/Istanbul or UTC") from None
    return value


def _outside_line(value: str) -> str:
    if not re.fullmatch(r"[0-9*#]{1,4}", value):
        raise ValueError('write what a phone dials before a public number, one to four digits, * or #, as "9"')
    return value


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,63}", value):
        raise ValueError("write the name of a table, letters, digits and underscores")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z][A-Za-z0-9_]{0,78}(\([A-Za-z0-9_]*\))?)?", value):
        raise ValueError('write the name of a channel variable, as "TRACEPARENT"; "" for none')
    return value


def _hours(value: str) -> str:
    clock = "([01][0-9]|2[0-3]):[0-5][0-9]"
    if not re.fullmatch(f"{clock}-{clock}", value) or value[:5] == value[6:]:
        raise ValueError('write from when to when by the clock of this machine, as "22:00-06:00"')
    return value


# A country by its two letters, whose plan of telephone numbers holds.
Country = Annotated[str, AfterValidator(known_country)]
# A channel variable of the dialplan, or a function as CHANNEL(userfield); empty for none.
Variable = Annotated[str, AfterValidator(_variable)]
# A byte set of old, one byte a letter.
Encoding = Annotated[str, AfterValidator(_encoding)]
# A zone of the IANA database: "Europe/Istanbul", "UTC".
TimeZone = Annotated[str, AfterValidator(_time_zone)]
OutsideLinePrefix = Annotated[str, AfterValidator(_outside_line)]
# Hours of the day by the machine's clock, "22:00-06:00".
Hours = Annotated[str, AfterValidator(_hours)]
# A site's or PBX's name: it becomes part of every call_sid, so it never changes once calls are captured.
PlainName = Annotated[str, AfterValidator(_plain_name)]
TableName = Annotated[str, AfterValidator(_identifier)]
DialledNumber = Annotated[str, AfterValidator(_dialled)]
Port = Annotated[int, Field(ge=1, le=65535)]
# A shell-like pattern as of fnmatch: "PJSIP/trunk-*".
Pattern = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _split_url(value: str, use: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(f"this is no URL; {use}") from None
    if port == 0:
        raise ValueError(f"0 is no port; {use}")
    if parts.password is not None or any("pass" in name.lower() for name, _ in parse_qsl(parts.query)):
        raise ValueError("keep the password out of the URL; use password_file")
    return parts


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class LogFormat(StrEnum):
    """TEXT for a terminal, JOURNAL for systemd's journal (priority prefix, no time), JSON for collectors.

    AUTO is JOURNAL where systemd reads what is logged, TEXT elsewhere.
    """

    AUTO = "auto"
    TEXT = "text"
    JOURNAL = "journal"
    JSON = "json"


class LogSettings(_Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: LogFormat = LogFormat.AUTO


class SourceKind(StrEnum):
    """What a PBX writes down itself, and where: a file of CSV lines, a table in MariaDB or SQLite, the queue log."""

    CDR_CSV = "cdr-csv"
    CEL_CSV = "cel-csv"
    CDR_MARIADB = "cdr-mariadb"
    CEL_MARIADB = "cel-mariadb"
    CDR_SQLITE = "cdr-sqlite"
    QUEUE_LOG = "queue-log"

    @property
    def is_remote(self) -> bool:
        """Whether it is reached by a URL, not by a path."""
        return self in {SourceKind.CDR_MARIADB, SourceKind.CEL_MARIADB}

    @property
    def is_table(self) -> bool:
        """Whether its columns have names of their own."""
        return self.is_remote or self is SourceKind.CDR_SQLITE

    @property
    def tells_calls(self) -> bool:
        """Whether it tells every call, so that it can fill gaps; a queue log knows of callers in queues only."""
        return self is not SourceKind.QUEUE_LOG


_USUAL_PATHS = {
    SourceKind.CDR_CSV: "/var/log/asterisk/cdr-csv/Master.csv",
    SourceKind.CEL_CSV: "/var/log/asterisk/cel-custom/Master.csv",
    SourceKind.CDR_SQLITE: "/var/log/asterisk/master.db",
    SourceKind.QUEUE_LOG: "/var/log/asterisk/queue_log",
}


class Server(NamedTuple):
    """What a URL says of a database's server."""

    host: str | None  # None: it is reached by a Unix socket
    port: int
    user: str
    database: str


class SourceSettings(_Section):
    """What a PBX writes down itself, followed all the time to fill what the live feed missed."""

    kind: SourceKind = Field(examples=["cdr-csv"])
    name: PlainName | None = None  # None: the kind
    path: FilePath | None = None  # of a file or a SQLite database
    url: str | None = None  # of MariaDB or MySQL: mariadb://user@host:3306/database
    socket: FilePath | None = None  # MariaDB's Unix socket, instead of a host in the URL: mariadb://user@/database
    password: Secret | None = None
    password_file: FilePath | None = None
    tls: bool | None = None  # None: not on this machine, elsewhere yes; a certificate is always verified
    tls_ca_file: FilePath | None = None
    table: TableName | None = None  # None: "cdr" or "cel"
    # The columns of a file in their order, "-" for one to be passed over. Empty: known by their number or a header.
    columns: tuple[Line, ...] = ()
    time_zone: TimeZone | None = None  # of times that tell none; None: the PBX's
    poll_seconds: Annotated[float, Field(ge=0.1, le=3600)] | None = None  # None: 0.5 for files, 5 for tables
    # A call counts as told wholly when so long nothing more came of it. CEL tells the end itself.
    settle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    # How much of what was written before the source was first read is taken over, beside what fills gaps.
    history_days: Annotated[int, Field(ge=0, le=36_500)] = 0

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value is not None:
            parts = _split_url(value, _MARIADB_URL)
            if parts.scheme not in {"mariadb", "mysql"} or not parts.path.strip("/") or not parts.username:
                raise ValueError(_MARIADB_URL)
        return value

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        kind = f'kind = "{self.kind}"'
        if self.kind.is_remote:
            if self.url is None:
                raise ValueError(f'{kind} needs a url, as url = "mariadb://user@127.0.0.1:3306/asteriskcdrdb"')
            if self.path is not None:
                raise ValueError(f"{kind} has a url and no path")
            self._check_way(self.url)
        else:
            if self.path is None:
                raise ValueError(f'{kind} needs a path, as path = "{_USUAL_PATHS[self.kind]}"')
            for key in ("url", "socket", "password", "password_file", "tls", "tls_ca_file"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{kind} has a path and no {key}")
        if self.columns and self.kind.is_table:
            raise ValueError(f"{kind} has columns with names of their own; leave columns away")
        if self.table is not None and not self.kind.is_table:
            raise ValueError(f"{kind} is a file; leave table away")
        return self

    def _check_way(self, url: str) -> None:
        host = urlsplit(url).hostname
        if (host is None) is (self.socket is None):
            raise ValueError(
                f'{_MARIADB_URL}, or on this machine mariadb://user@/database and socket = "/run/mysqld/mysqld.sock"'
            )
        if self.socket is not None and self.tls:
            raise ValueError("what goes through a socket never leaves this machine; leave tls away")
        if self.tls_ca_file is not None and not self.uses_tls:
            raise ValueError("tls_ca_file is given and TLS is not used; write tls = true, or leave it away")

    @property
    def called(self) -> str:
        """Its name at its PBX."""
        return self.name or str(self.kind)

    @property
    def table_name(self) -> str:
        """The table that is read, where it is one."""
        return self.table or ("cel" if self.kind is SourceKind.CEL_MARIADB else "cdr")

    @property
    def server(self) -> Server | None:
        """Where its table is, if a server has it."""
        if self.url is None:
            return None
        parts = urlsplit(self.url)
        return Server(parts.hostname, parts.port or 3306, unquote(parts.username or ""), unquote(parts.path.strip("/")))

    @property
    def uses_tls(self) -> bool:
        """Whether the way to its server is encrypted."""
        if self.tls is not None:
            return self.tls
        return self.server is not None and self.server.host is not None and not _is_this_machine(self.server.host)

    @property
    def place(self) -> str:
        """Where it is, without who goes there."""
        server = self.server
        if server is None:
            return str(self.path)
        return f"{server.database}.{self.table_name} at {self.socket or f'{server.host}:{server.port}'}"

    @property
    def polled_every(self) -> float:
        """Seconds between two looks."""
        return self.poll_seconds or (5.0 if self.kind.is_table else 0.5)


class AsteriskSettings(_Section):
    """One Asterisk, heard by AMI."""

    name: PlainName = Field(examples=["main"])
    kind: Literal["asterisk"] = "asterisk"
    host: Host = "127.0.0.1"
    port: Port = 5038
    tls: bool = False
    tls_ca_file: FilePath | None = None
    tls_server_name: Host | None = None
    username: Line = Field(examples=["sentiric"])
    secret: Secret | None = None
    secret_file: FilePath | None = None
    login: Literal["md5", "plain"] = "md5"  # plain text secrets only where the PBX cannot do MD5
    # The AMI event classes asked for; "dialplan" tells a menu from an answering service.
    event_classes: tuple[Line, ...] = ("system", "call", "agent", "dialplan", "user")
    # Events kept off the line if the AMI user may set filters (write=system); eventfilter in manager.conf is better.
    drop_events: tuple[Line, ...] = ("VarSet", "RTCPSent", "RTCPReceived", "TestEvent")
    # Channels that lead to the public network.
    trunks: tuple[Pattern, ...] = ("*trunk*",)
    # Dialplan contexts where calls from the public network arrive.
    inbound_contexts: tuple[Pattern, ...] = (
        "from-trunk*",
        "from-pstn*",
        "from-did*",
        "from-external*",
        "from-dahdi*",
    )
    # Dialplan applications that answer in a person's stead; a menu or an announcement is none.
    answering_applications: tuple[Line, ...] = (
        "Stasis",
        "AudioSocket",
        "ConfBridge",
        "MeetMe",
        "VoiceMailMain",
        "ChanSpy",
        "ExtenSpy",
        "Echo",
    )
    voicemail_applications: tuple[Line, ...] = ("VoiceMail", "MiniVM")
    country: Country | None = None  # None: the site's
    # What phones dial to get an outside line, before a public number.
    outside_line_prefixes: tuple[OutsideLinePrefix, ...] = ()
    time_zone: TimeZone | None = None  # of the times in its CDR files; None: this machine's
    # Bears the W3C traceparent of who sent the call, where the dialplan sets it.
    trace_variable: Variable = "TRACEPARENT"
    legacy_encoding: Encoding | None = None  # of names that are no UTF-8; None: by the country
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    ping_seconds: Annotated[float, Field(ge=1, le=300)] = 15.0
    # Without any byte for so long after a ping, the line is taken for dead.
    pong_timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    # The channels are listed again so often, to notice calls whose end was never told.
    snapshot_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    reconnect_max_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0
    # Where the PBX's own configuration can be read. None: /etc/asterisk, if the PBX is on this machine.
    config_directory: FilePath | None = None
    sources: tuple[SourceSettings, ...] = ()

    @field_validator("sources")
    @classmethod
    def _one_source_each(cls, value: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.called for source in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}; give each a name of its own")
        return value

    @property
    def has_second_source(self) -> bool:
        """Whether one of the sources tells its calls."""
        return any(source.kind.tells_calls for source in self.sources)


# More kinds of PBX join this union, told apart by `kind`.
PbxSettings = AsteriskSettings


class TenantRule(_Section):
    """Every condition given must hold. Numbers are compared as the PBX tells them, without a leading '+'."""

    tenant: PlainName = Field(examples=["acme"])
    pbx: PlainName | None = None
    trunk: Pattern | None = None  # a trunk channel of the call, e.g. "PJSIP/trunk-acme"
    endpoint: Pattern | None = None  # any channel of the call without its -0000001a, e.g. "PJSIP/1*"
    context: Pattern | None = None  # the dialplan context in which the call started
    did_prefix: DialledNumber | None = None  # the number first dialled by an inbound call
    did_range: tuple[DialledNumber, DialledNumber] | None = None  # from and to, both included, of equal length
    accountcode: str | None = None
    extension_range: tuple[int, int] | None = None  # of the calling or, for an inbound call, the answering phone

    @field_validator("did_range")
    @classmethod
    def _ordered_dids(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        if value is not None:
            low, high = (number.lstrip("+") for number in value)
            if not (low.isdigit() and high.isdigit()) or len(low) != len(high) or low > high:
                raise ValueError("give two numbers of equal length, the lower one first")
        return value

    @field_validator("extension_range")
    @classmethod
    def _ordered_extensions(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] <= value[1]:
            raise ValueError("give two extensions, the lower one first")
        return value

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.model_fields_set <= {"tenant"}:
            raise ValueError("the rule has no condition; for calls that no rule matches set tenancy.default")
        return self


def _mask_pattern(value: str) -> str:
    compile_pattern(value)
    return value


MaskPattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN_LENGTH), AfterValidator(_mask_pattern)]


class PrivacyRule(_Section):
    """What is masked in all that services write for a tenant's calls, before it is kept; several rules add up."""

    tenant: PlainName | Literal["*"] = Field(examples=["acme"])  # "*": every tenant
    mask: tuple[MaskKind, ...] = ()  # card, tckn, iban: told by their checksums
    patterns: Annotated[tuple[MaskPattern, ...], Field(max_length=MAX_PATTERNS)] = ()  # in RE2's syntax

    @model_validator(mode="after")
    def _masks_something(self) -> Self:
        if not (self.mask or self.patterns):
            raise ValueError('the rule masks nothing; write mask = ["card", "tckn", "iban"] or patterns = ["…"]')
        return self


class RetentionRule(_Section):
    """How long one tenant's calls are kept here, instead of `retention.calls_days`."""

    tenant: PlainName = Field(examples=["acme"])
    calls_days: Annotated[int, Field(ge=1, le=36_500)] = Field(examples=[30])


class TenancySettings(_Section):
    """Whose call is whose: the first rule that matches wins, then the default, else the call stays unassigned."""

    default: PlainName | None = None
    rules: tuple[TenantRule, ...] = ()
    privacy: tuple[PrivacyRule, ...] = ()
    retention: tuple[RetentionRule, ...] = ()

    @field_validator("retention")
    @classmethod
    def _one_rule_each(cls, value: tuple[RetentionRule, ...]) -> tuple[RetentionRule, ...]:
        names = [rule.tenant for rule in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules are for the tenant {twice[0]!r}; leave one away")
        return value

    def tenants(self) -> frozenset[str]:
        """Every tenant's name that the settings mention."""
        named = {rule.tenant for rule in self.rules}
        return frozenset(named | {self.default} if self.default else named)


class LiveSettings(_Section):
    """Where the live CallContext is kept: memory://, redis://host:port/0, rediss://… or unix:///path/to/socket."""

    url: str = "memory://"
    username: str | None = None
    password: Secret | None = None
    password_file: FilePath | None = None
    tls_ca_file: FilePath | None = None  # for rediss:// with a certificate of one's own
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0  # for one read or write of a context
    grace_seconds: Annotated[int, Field(ge=0, le=86_400)] = 60  # how long a context outlives its call
    late_seconds: Annotated[int, Field(ge=60, le=604_800)] = 3600  # how long what services wrote is kept one by one
    max_interactions: Annotated[int, Field(ge=1, le=100_000)] = 10_000  # of a call
    max_tasks: Annotated[int, Field(ge=1, le=1_000)] = 64  # on a call's stack
    max_value_bytes: Annotated[int, Field(ge=1024, le=1_048_576)] = 64 * 1024  # an interaction, a task, a patch
    max_context_bytes: Annotated[int, Field(ge=65_536, le=16_777_216)] = 4 * 1024 * 1024
    max_transcript_bytes: Annotated[int, Field(ge=65_536, le=16_777_216)] = 4 * 1024 * 1024

    @field_validator("url")
    @classmethod
    def _known_home(cls, value: str) -> str:
        use = "use memory://, redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket"
        parts = _split_url(value, use)
        if parts.scheme not in {"memory", "redis", "rediss", "unix"} or (parts.scheme == "unix" and not parts.path):
            raise ValueError(use)
        if parts.scheme in {"redis", "rediss"} and not re.fullmatch(r"/?\d*", parts.path):
            raise ValueError(f"the path is the number of a database; {use}")
        if any(name != "db" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
            raise ValueError("only ?db= may follow; user, password and timeouts have settings of their own")
        return value


class ApiSettings(_Section):
    """The API for services on this machine: its socket and, if wanted, a port."""

    group: Line = "sentiric-edge-services"  # whose members may use the socket, if this machine has it
    # What a service may do that comes by the socket without a token, to the calls of all tenants.
    socket_access: Literal["none", "read", "write"] = "none"
    listen: str | None = Field(default=None, examples=["127.0.0.1:8015"])
    connections: Annotated[int, Field(ge=1, le=10_000)] = 256  # open at once

    @field_validator("listen")
    @classmethod
    def _on_this_machine(cls, value: str | None) -> str | None:
        if value is not None:
            use = "write an address of this machine and a port, as 127.0.0.1:8015"
            parts = _split_url(f"tcp://{value}", use)
            if parts.port is None or parts.netloc != value or "@" in value or not parts.hostname:
                raise ValueError(use)
            if not _is_this_machine(parts.hostname):
                raise ValueError(f"the API has no TLS and is for this machine only; {use}")
        return value

    @property
    def port(self) -> tuple[str, int] | None:
        """Host and port, if there is one."""
        if self.listen is None:
            return None
        parts = urlsplit(f"tcp://{self.listen}")
        return parts.hostname or "", parts.port or 0


class OnFull(StrEnum):
    """What may be done when the room for local data is nearly used up; calls that were not sent are never touched."""

    STOP_BACKFILL = "stop_backfill"
    DROP_SYNCED_HISTORY = "drop_synced_history"
    DROP_JOURNAL = "drop_journal"


class StoreSettings(_Section):
    """How the local database keeps what it is given."""

    commit_interval_ms: Annotated[int, Field(ge=1, le=1000)] = 50  # the longest a fact waits for its commit
    journal_keep_hours: Annotated[int, Field(ge=1)] = 72
    journal_max_megabytes: Annotated[int, Field(ge=16)] = 512
    budget_megabytes: Annotated[int, Field(ge=64)] | None = None  # of everything together; None: all the disk
    budget_days: Annotated[float, Field(gt=0)] | None = None  # a warning when fewer days without the centre fit in
    on_full: tuple[OnFull, ...] = (OnFull.STOP_BACKFILL, OnFull.DROP_SYNCED_HISTORY, OnFull.DROP_JOURNAL)
    reserve_megabytes: Annotated[int, Field(ge=0, le=4096)] = 32  # kept free for the worst hour; 0: none
    spill_max_megabytes: Annotated[int, Field(ge=1, le=65_536)] = 1024
    check_every_days: Annotated[int, Field(ge=0, le=366)] = 7  # 0: only after an unclean stop
    # 0: none. A copy on the same disk does not outlive it, and holds persons who were erased since.
    backup_every_hours: Annotated[int, Field(ge=0, le=8784)] = 0
    backup_keep: Annotated[int, Field(ge=1, le=1000)] = 3
    backup_directory: FilePath | None = None  # None: backups in the state directory

    @property
    def check_every(self) -> timedelta | None:
        """How long after a complete check of the database the next one comes."""
        return timedelta(days=self.check_every_days) if self.check_every_days else None

    @property
    def backup_every(self) -> timedelta | None:
        """How long after a backup the next one comes."""
        return timedelta(hours=self.backup_every_hours) if self.backup_every_hours else None

    @property
    def journal_keep(self) -> timedelta:
        """How long the raw journal is kept."""
        return timedelta(hours=self.journal_keep_hours)


class RetentionSettings(_Section):
    """How long what is here stays. Calls that the centre has not confirmed stay whatever their age."""

    # From a call's beginning, once the centre confirmed it; [[tenancy.retention]] says otherwise for a tenant.
    calls_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    # Beyond so much of the database that is no journal, the oldest confirmed calls go earlier.
    calls_max_megabytes: Annotated[int, Field(ge=64)] | None = None
    # Without a [central] section nothing confirms calls. None: they stay for ever.
    calls_days_without_centre: Annotated[int, Field(ge=1, le=36_500)] | None = None
    rejects_days: Annotated[int, Field(ge=1, le=36_500)] = 90  # lines of second sources that were no record
    history_days: Annotated[int, Field(ge=8, le=36_500)] = 400  # gaps, verified days, refused calls that were dropped
    # By what is kept of an erased person, a source that is read again brings nothing back. None: for ever.
    erasures_days: Annotated[int, Field(ge=365, le=36_500)] | None = None


class TracingSettings(_Section):
    """Where a span of each ended call goes, by OTLP over HTTP: http://127.0.0.1:4318. It holds no personal data."""

    otlp_endpoint: str | None = None  # None: nowhere
    timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0  # for one request

    @field_validator("otlp_endpoint")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        use = "use the collector's address for OTLP over HTTP, as http://127.0.0.1:4318"
        if value is not None:
            parts = _split_url(value, use)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
                raise ValueError(use)
        return value

    @property
    def traces_url(self) -> str | None:
        """Where traces are taken."""
        if self.otlp_endpoint is None:
            return None
        return f"{self.otlp_endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"


class CentralSettings(_Section):
    """The centre calls are synced to: a hub, https://hub.example, or its database itself, postgresql://user@host/db."""

    url: str = Field(examples=["https://hub.example"])
    credential: Secret | None = None  # of a hub
    credential_file: FilePath | None = None  # None: hub.credential in the state directory
    password: Secret | None = None  # of a database
    password_file: FilePath | None = None
    tls_ca_file: FilePath | None = None
    proxy: str | None = None  # None: as HTTPS_PROXY and NO_PROXY say; "none": none whatever they say
    interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0  # a look at the outbox even if nothing happened
    batch_records: Annotated[int, Field(ge=1, le=10_000)] | None = None  # None: as `largest_batch` says
    batches_under_way: Annotated[int, Field(ge=1, le=16)] = 4  # at most; found out by what the line brings
    timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0  # for one batch
    max_kilobits_per_second: Annotated[float, Field(ge=64)] | None = None  # to a hub; None: as much as the line brings
    bulk_hours: tuple[Hours, ...] = ()  # in which a backlog goes; calls that have just ended always do
    retry_max_seconds: Annotated[float, Field(ge=1, le=3600)] = 300.0
    # So long after its last word this installation still speaks for the site, and no copy of it may.
    lease_seconds: Annotated[float, Field(ge=10, le=3600)] = 60.0

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        use = "use https://hub.example, or postgresql://user@host:5432/database"
        parts = _split_url(value, use)
        match parts.scheme:
            case "postgresql" | "postgres" if parts.path.strip("/"):
                return value
            case "https" | "http" if parts.hostname and not (parts.query or parts.fragment or parts.username):
                if parts.scheme == "http" and not _is_this_machine(parts.hostname):
                    raise ValueError("http:// is for this machine only, since it protects nothing; use https://")
                return value.rstrip("/")
        raise ValueError(use)

    @field_validator("proxy")
    @classmethod
    def _known_proxy(cls, value: str | None) -> str | None:
        use = 'use http://proxy.example:3128, or "none"; user and password belong into the environment\'s HTTPS_PROXY'
        if value is not None and value != "none":
            parts = _split_url(value, use)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.path.strip("/"):
                raise ValueError(use)
        return value

    @model_validator(mode="after")
    def _one_door(self) -> Self:
        foreign = (
            ("password", "password_file")
            if self.is_hub
            else ("credential", "credential_file", "proxy", "max_kilobits_per_second")
        )
        for key in foreign:
            if getattr(self, key) is not None:
                what = "a hub asks for a credential" if self.is_hub else "this is for a hub, https://"
                raise ValueError(f"{what}; leave {key} away")
        return self

    @property
    def is_hub(self) -> bool:
        """Whether calls go to a hub, not into the database itself."""
        return urlsplit(self.url).scheme in {"https", "http"}

    @property
    def largest_batch(self) -> int:
        """How many calls are sent together at most; docs/decisions/0009 says why so many."""
        return self.batch_records or (500 if self.is_hub else 800)

    @property
    def address(self) -> str:
        """Where the centre is, without who goes there: the hub's URL, or host, port and database."""
        parts = urlsplit(self.url)
        return self.url if self.is_hub else f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"


class Settings(_Section):
    """Everything the agent can be told."""

    site: PlainName = Field(examples=["istanbul-1"])
    country: Country | None = None  # None: only numbers that begin with + or 00 are known as public ones
    state_directory: FilePath = Path("/var/lib/sentiric-edge")
    runtime_directory: FilePath = Path("/run/sentiric-edge")
    log: LogSettings = LogSettings()
    pbx: tuple[PbxSettings, ...] = ()
    tenancy: TenancySettings = TenancySettings()
    live: LiveSettings = LiveSettings()
    api: ApiSettings = ApiSettings()
    store: StoreSettings = StoreSettings()
    retention: RetentionSettings = RetentionSettings()
    tracing: TracingSettings = TracingSettings()
    central: CentralSettings | None = None  # None: calls are kept here and wait

    @field_validator("pbx")
    @classmethod
    def _one_name_each(cls, value: tuple[PbxSettings, ...]) -> tuple[PbxSettings, ...]:
        names = [pbx.name for pbx in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two PBXes are called {twice[0]!r}; give each its own name")
        return value

    @model_validator(mode="after")
    def _backups_lie_apart(self) -> Self:
        if self.backup_directory == self.state_directory:
            raise ValueError("store.backup_directory is the state_directory itself; name a directory of its own")
        return self

    def encoding_of(self, pbx: PbxSettings) -> str:
        """How the PBX's names are to be read that are no UTF-8. Windows-1254 holds all of ISO-8859-9."""
        if pbx.legacy_encoding is not None:
            return pbx.legacy_encoding
        return "cp1254" if (pbx.country or self.country) in {"TR", "AZ"} else "cp1252"

    @property
    def credential_file(self) -> Path:
        """Where the hub's credential is kept, unless the settings themselves hold it."""
        named = self.central.credential_file if self.central else None
        return named or self.state_directory / "hub.credential"

    @property
    def database_file(self) -> Path:
        """The local SQLite database."""
        return self.state_directory / "edge.db"

    @property
    def backup_directory(self) -> Path:
        """Where backups of it go, if nobody names a place."""
        return self.store.backup_directory or self.state_directory / "backups"

    @property
    def socket_file(self) -> Path:
        """The Unix socket on which the running agent answers its command line."""
        return self.runtime_directory / "api.sock"

    @property
    def services_socket_file(self) -> Path:
        """The Unix socket on which it answers services."""
        return self.runtime_directory / "services.sock"
