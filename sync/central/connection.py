"""How connections to the central database are made, and what its errors mean to us.

The texts name the server and what to do, and never hold a password, a DSN or a call's data: PostgreSQL's own
messages can quote values, so of a failed statement only the kind of error is told.
"""

import asyncio
import os
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.exceptions import InvalidCachedStatementError
from pydantic import SecretStr

from sync.errors import SyncError, UplinkRefused, UplinkUnavailable

CONNECT_SECONDS = 15.0
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
# What a pooler without support for prepared statements (pgbouncer before 1.21, by transaction) makes of them.
LOST_STATEMENTS = frozenset({"26000", "42P05"})
_MIGRATE = "run `edge-hub migrate` on it"


@dataclass(frozen=True, slots=True)
class CentralAddress:
    """A central database and the way in. `dsn` may hold a password, `password` and `password_file` go before it.

    The file is read at each connection, so that a changed password needs no restart.
    """

    dsn: str = field(repr=False)
    password: SecretStr | None = None
    password_file: Path | None = None
    tls_ca_file: Path | None = None

    @property
    def label(self) -> str:
        """The server and database in words for an operator, without user and password."""
        try:
            parts = urlsplit(self.dsn)
            where, port = ",".join(self._hosts()) or "the local server", parts.port
        except ValueError:
            return "the central database"
        return f"{where}{f':{port}' if port else ''}/{parts.path.strip('/')}"

    def read_password(self) -> str | None:
        """The password given beside the DSN, if any; raises UplinkRefused if its file cannot be read."""
        if self.password_file is not None:
            try:
                return self.password_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                why = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
                raise UplinkRefused(f"cannot read the password file {self.password_file}: {why}") from None
        return self.password.get_secret_value() if self.password is not None else None

    def tls(self) -> ssl.SSLContext | bool:
        """TLS is verified, always. It is left out on this machine, and elsewhere only if `sslmode=disable` says so."""
        mode = parse_qs(urlsplit(self.dsn).query).get("sslmode", [""])[-1]
        local = all(host.startswith("/") or host in _LOCAL for host in self._hosts())
        if mode == "disable" or (local and not mode and self.tls_ca_file is None):
            return False
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
        except OSError as exc:
            why = exc.strerror or "it holds no certificate in PEM form"
            raise UplinkRefused(f"cannot use the CA file {self.tls_ca_file}: {why}") from None
        context.check_hostname = mode != "verify-ca"
        return context

    def _hosts(self) -> list[str]:
        parts = urlsplit(self.dsn)
        named = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", [""])[-1]
        return [re.sub(r":\d*$", "", host).strip("[]") for host in named.split(",") if host]


async def connect(
    address: CentralAddress, *, application_name: str, statement_cache_size: int = 100
) -> asyncpg.Connection:
    """Connect within CONNECT_SECONDS; raises UplinkUnavailable or UplinkRefused with a sentence."""
    password, tls = address.read_password(), _tls_or_refuse(address)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncpg.connect(
                address.dsn,
                password=password,
                ssl=tls,
                statement_cache_size=statement_cache_size,
                server_settings={"application_name": application_name[:63]},
            )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError) as exc:
        raise explain_connecting(exc, address.label) from None  # the cause may quote the DSN


def _tls_or_refuse(address: CentralAddress) -> ssl.SSLContext | bool:
    try:
        return address.tls()
    except ValueError:
        raise UplinkRefused("the address of the central database is no postgresql:// URL") from None


def explain_connecting(exc: Exception, label: str) -> SyncError:  # noqa: PLR0911 - one table of cases
    """What a failure to connect means."""
    match exc:
        case asyncpg.PostgresError():
            return explain(exc, label)
        case TimeoutError():
            return UplinkUnavailable(f"{label} does not answer the connection")
        case ssl.SSLCertVerificationError():
            return UplinkRefused(
                f"the certificate of {label} is not trusted ({exc.verify_message}); name its CA in tls_ca_file"
            )
        case ConnectionError() if "rejected SSL upgrade" in str(exc):
            return UplinkRefused(
                f"{label} offers no TLS; switch it on there, or add ?sslmode=disable to the address to send calls and "
                "password unprotected"
            )
        case OSError():
            return UplinkUnavailable(f"{label} cannot be reached: {_reason(exc)}")
        case asyncpg.InternalClientError():
            return UplinkUnavailable(f"{label} does not speak as PostgreSQL does")
        case asyncpg.InterfaceError() if not isinstance(exc, ValueError):
            return UplinkUnavailable(f"{label} closed the connection")
        case _:
            return UplinkRefused("the address of the central database cannot be used; write postgresql://user@host/db")


def explain(exc: Exception, label: str) -> SyncError:  # noqa: PLR0911 - one table of cases
    """What a failure in a working connection means, if it is not about a record."""
    if not isinstance(exc, asyncpg.PostgresError) or isinstance(exc, InvalidCachedStatementError):
        return UplinkUnavailable(f"the connection to {label} broke")
    code, kind = exc.sqlstate or "", f"{condition(exc)}, {exc.sqlstate}"
    if code.startswith("28"):
        return UplinkRefused(f"{label} refuses the log-in; check user name, password and pg_hba.conf ({kind})")
    if code == "3D000":
        return UplinkRefused(f"{label}: there is no such database; create it or correct the address ({kind})")
    if code == "42501":
        return UplinkRefused(
            f"{label}: the database user lacks rights; `edge-hub sites add --direct` makes one that has them, and "
            f"`edge-hub migrate` puts right those of the groups ({kind})"
        )
    if code in LOST_STATEMENTS:
        return UplinkUnavailable(
            f"a pooler before {label} forgets prepared statements; go to PostgreSQL itself with this command ({kind})"
        )
    if code[:2] in {"42", "3F"}:
        return UplinkRefused(f"{label}: the tables are not those this version writes; {_MIGRATE} ({kind})")
    return UplinkUnavailable(f"{label} cannot take calls now ({kind})")


def is_about_the_record(exc: Exception) -> bool:
    """Whether trying the same record again, now or later, must fail in the same way."""
    if isinstance(exc, asyncpg.PostgresError):
        code = exc.sqlstate or ""
        if code == "42501":  # a row-level security policy or a trigger said no, not a missing right on the table
            return not (exc.server_source_function or "").startswith("aclcheck_error")
        return code[:2] in {"21", "22", "23", "44", "54", "P0"}
    # What asyncpg raises for a value that cannot be put into the column's type.
    return isinstance(exc, ValueError | TypeError | OverflowError)


def condition(exc: Exception) -> str:
    """An error's kind in plain words: "untranslatable character", made from the class asyncpg has for it."""
    name = type(exc).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()


def _reason(exc: OSError) -> str:
    if isinstance(exc, socket.gaierror):
        return "its name is not known"
    return os.strerror(exc.errno) if exc.errno else "no connection"  # asyncio's own text repeats the address
