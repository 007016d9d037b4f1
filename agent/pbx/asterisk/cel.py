"""One row of Asterisk's channel event log (CEL), from a line of `cel_custom` or a row of a table; pure.

A line that is no row is told with its reason, never as an exception: files end in half lines when Asterisk is killed,
and people edit them.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final

import orjson

from agent.pbx.text import DEFAULT_ENCODING, decoded, name_of

# The columns of the line that docs/asterisk.md recommends for cel_custom.conf, in its order.
CEL_COLUMNS: Final = (
    "eventtype", "eventtime", "cid_name", "cid_num", "cid_ani", "cid_rdnis", "cid_dnid", "exten", "context",
    "channel", "appname", "appdata", "accountcode", "uniqueid", "linkedid", "peer", "userfield", "extra",
)  # fmt: skip

# `eventtype` where a back end writes numbers.
_EVENTS_BY_NUMBER: Final = dict(
    enumerate(
        (
            "CHAN_START", "CHAN_END", "HANGUP", "ANSWER", "APP_START", "APP_END", "BRIDGE_ENTER", "BRIDGE_EXIT",
            "PARK_START", "PARK_END", "BLINDTRANSFER", "ATTENDEDTRANSFER", "USER_DEFINED", "LINKEDID_END", "PICKUP",
            "FORWARD", "LOCAL_OPTIMIZE", "LOCAL_OPTIMIZE_BEGIN", "STREAM_BEGIN", "STREAM_END", "DTMF",
        ),
        start=1,
    )
)  # fmt: skip
# What tables and Asterisk's own examples call a column, and what we do.
_ALIASES: Final = {
    "channame": "channel", "eventextra": "extra", "cidname": "cid_name", "cidnum": "cid_num", "cid_ani2": "",
    "acctcode": "accountcode", "eventname": "eventtype", "calleridname": "cid_name", "calleridnum": "cid_num",
}  # fmt: skip
_NEEDED: Final = frozenset({"eventtype", "eventtime", "uniqueid"})
# Columns that are there and tell nothing we need, and a place to be passed over.
_UNUSED: Final = frozenset({"", "-", "id", "amaflags", "tenantid", "sequence", "peeraccount", "uniquebase"})
_MAX_ID_LENGTH: Final = 150  # Asterisk's own limit
# The years 2000 to 2100: what lies outside is no time of an event.
_OLDEST: Final = 946_684_800.0
_NEWEST: Final = 4_102_444_800.0


@dataclass(frozen=True, slots=True)
class CelRow:
    """What happened to one channel. Numbers and names are None where Asterisk knows none."""

    event: str
    """`CHAN_START` …; what a dialplan calls an event of its own is told as it is."""
    at: datetime
    channel: str
    """Its uniqueid."""
    linked: str
    name: str
    """`PJSIP/101-00000001`."""
    number: str | None
    caller_name: str | None
    context: str
    exten: str
    application: str
    data: str
    accountcode: str
    extra: Mapping[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class NoCelRow:
    """Why a line tells nothing."""

    reason: str


_EMPTY: Final = NoCelRow("an empty line")
_HEADER: Final = NoCelRow("a header")
_NOTHING: Final[Mapping[str, Any]] = {}


class CelReader:
    """Reads lines whose columns are `columns`, until a header tells otherwise.

    `zone` is that of the PBX's clock, for times that bear none; what is no UTF-8 is in `encoding`.
    """

    def __init__(
        self, columns: Iterable[str] = CEL_COLUMNS, *, zone: tzinfo = UTC, encoding: str = DEFAULT_ENCODING
    ) -> None:
        self._zone = zone
        self._encoding = encoding
        self._columns = self._names(columns)

    @staticmethod
    def _names(columns: Iterable[str]) -> list[str]:
        names = (name.strip().lower() for name in columns)
        return [_ALIASES.get(name, name) for name in names]

    def read(self, line: bytes) -> CelRow | NoCelRow:
        """The row of one line, with or without its line end."""
        text = decoded(line, self._encoding).strip("\r\n")
        if not text:
            return _EMPTY
        try:
            fields = next(csv.reader((text,), strict=True))
        except (csv.Error, StopIteration) as exc:
            return NoCelRow(f"no line of CSV: {exc}")
        told = self._row(dict(zip(self._columns, fields, strict=False)))
        is_whole = len(fields) == len(self._columns)
        if is_whole and isinstance(told, CelRow):
            return told
        names = self._names(fields)
        if _NEEDED.issubset(names):
            self._columns = names
            return _HEADER
        return told if is_whole else NoCelRow(f"{len(fields)} columns instead of {len(self._columns)}")

    def row_of(self, values: Mapping[str, object]) -> CelRow | NoCelRow:
        """The row of a table, by the names of its columns; bytes are text in `encoding`."""
        told: dict[str, Any] = {}  # Any: columns of many types
        for column, value in values.items():
            name = column.lower()
            told[_ALIASES.get(name, name)] = self._text(value)
        return self._row(told)

    def _text(self, value: object) -> str | datetime:
        match value:
            case None:
                return ""
            case str() | datetime():
                return value
            case bytes():
                return decoded(value, self._encoding)
            case _:
                return str(value)

    def _row(self, told: dict[str, Any]) -> CelRow | NoCelRow:  # Any: as above
        get = told.get
        channel, event = get("uniqueid", ""), get("eventtype", "")
        if not channel or len(channel) > _MAX_ID_LENGTH:
            return NoCelRow("no uniqueid")
        if not event:
            return NoCelRow("no eventtype")
        if event.isdecimal():
            event = _EVENTS_BY_NUMBER.get(int(event[:3]), event)
        at = self._moment(get("eventtime", ""))
        if at is None:
            return NoCelRow("no time of an event")
        linked = get("linkedid") or channel
        if len(linked) > _MAX_ID_LENGTH:
            return NoCelRow("no linkedid")
        extra = _extra(get("extra", ""))
        if extra is None:
            return NoCelRow("broken JSON in extra")
        return CelRow(
            event, at, channel, linked, get("channel", ""), _known(get("cid_num", "")), _known(get("cid_name", "")),
            get("context", ""), get("exten", ""), get("appname", ""), get("appdata", ""), get("accountcode", ""), extra,
        )  # fmt: skip

    def _moment(self, told: str | datetime) -> datetime | None:
        """Seconds since 1970 with or without a fraction, ISO 8601, or local time as `%F %T` writes it."""
        try:
            if isinstance(told, str):
                seconds, point, fraction = told.partition(".")
                if seconds.isdecimal() and (fraction.isdecimal() or not point):
                    if not _OLDEST < int(seconds) < _NEWEST:
                        return None
                    # Not by float, which has no room for microseconds.
                    moment = datetime.fromtimestamp(int(seconds), UTC)
                    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction else moment
                told = datetime.fromisoformat(told)
            local = told.replace(tzinfo=self._zone) if told.tzinfo is None else told
            return local.astimezone(UTC) if _OLDEST < local.timestamp() < _NEWEST else None
        except (ValueError, OverflowError):
            return None


@lru_cache(maxsize=4096)
def _known(text: str) -> str | None:
    """Asterisk writes `<unknown>` in some places where it knows nothing."""
    return name_of(text) if text and text.lower() != "<unknown>" else None


def _extra(text: str) -> Mapping[str, Any] | None:
    if not text:
        return _NOTHING
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def strange_columns(columns: Iterable[str]) -> str | None:
    """What is wrong with columns as the settings name them; None if a reader can work with them."""
    names = [_ALIASES.get(name, name) for name in (column.strip().lower() for column in columns)]
    strange = sorted(set(names) - set(CEL_COLUMNS) - _UNUSED)
    if strange:
        known = ", ".join(sorted(CEL_COLUMNS))
        return f"{strange[0]!r} is no column; there are {known}, and - for one to be passed over"
    missing = sorted(_NEEDED - set(names))
    return f"the column {missing[0]} has to be among them" if missing else None
