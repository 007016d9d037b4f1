"""A batch's JSON becomes records, one by one: what one record has wrong costs the others nothing.

The body is cut into records first and each of them decoded then; its JSON members stay text for PostgreSQL.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

import msgspec

from sync.hub.problems import Malformed, TooLarge
from sync.models import Direction, Disposition, HangupSource, Presentation, Status
from sync.records import Batch, CallRecord, Receipt, RecordReceipt, Verdict
from sync.wire import JSON_MEMBERS

MALFORMED: Final = "malformed"

_BIGGEST: Final = 2**63 - 1
_ROWS_AT_ONCE: Final = 250  # decoded before other requests get their turn: about 5 ms
_JSON_PLACES: Final = tuple(CallRecord._fields.index(name) for name in JSON_MEMBERS)
_CLOSED_SETS: Final[dict[str, type[StrEnum]]] = {
    "direction": Direction,
    "status": Status,
    "disposition": Disposition,
    "caller_presentation": Presentation,
    "hangup_source": HangupSource,
}
# What msgspec says of a member, without the value that it may quote.
_AT: Final = re.compile(r"at `\$\.(\w+)")
_MISSING: Final = re.compile(r"missing required field `(\w+)`")

_Count = Annotated[int, msgspec.Meta(ge=0, le=_BIGGEST)]
_Name = Annotated[str, msgspec.Meta(max_length=64)]


class _Head(msgspec.Struct, frozen=True):
    site: _Name
    high_water: _Count
    records: Any  # Any: see BatchReader
    holder: Annotated[str, msgspec.Meta(max_length=128)] = ""
    lease: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    receipts: _Count = 0


def _wire_type(name: str, hint: Any) -> Any:  # Any: types, as values
    if name in _CLOSED_SETS:
        hint_of_value: Any = Literal[tuple(str(value) for value in _CLOSED_SETS[name])]
        return hint_of_value | None if type(None) in get_args(hint) else hint_of_value
    if datetime in (hint, *get_args(hint)):
        moment: Any = Annotated[datetime, msgspec.Meta(tz=True)]
        return moment | None if type(None) in get_args(hint) else moment
    if int in (hint, *get_args(hint)):
        number: Any = Annotated[int, msgspec.Meta(ge=0 if name == "revision" else -_BIGGEST, le=_BIGGEST)]
        return number | None if type(None) in get_args(hint) else number
    return hint


def _fields(*, json: Any, no_json: Any) -> list[Any]:  # Any: what defstruct takes
    hints, defaults = get_type_hints(CallRecord), CallRecord._field_defaults
    fields: list[Any] = []
    for name in CallRecord._fields:
        kind = json if name in JSON_MEMBERS else _wire_type(name, hints[name])
        default = (no_json if name in JSON_MEMBERS else defaults[name],) if name in defaults else ()
        fields.append((name, kind, *default))
    return fields


# A call as it may come; made from CallRecord, so that a new member needs no word here.
_Call = msgspec.defstruct("Call", _fields(json=msgspec.Raw, no_json=msgspec.Raw(b"[]")), frozen=True, gc=False)
# The same with its JSON members opened, for the OpenAPI document.
_OpenCall = msgspec.defstruct(
    "Call", _fields(json=list[dict[str, Any]], no_json=msgspec.field(default_factory=list)), frozen=True
)


class _Named(msgspec.Struct, frozen=True):
    """As much of a broken record as its verdict needs."""

    call_sid: Annotated[str, msgspec.Meta(max_length=255)] = ""
    revision: _Count = 0


_call = msgspec.json.Decoder(_Call)
_named = msgspec.json.Decoder(_Named)


class Incoming:
    """A batch as it came: its records, and verdicts on those that are none."""

    def __init__(self, head: _Head, raws: Sequence[msgspec.Raw]) -> None:
        self._head = head
        self._raws = raws
        self._records: list[CallRecord] = []
        self._malformed: list[tuple[int, RecordReceipt]] = []

    @property
    def site(self) -> str:
        """For whom it speaks, by its own word."""
        return self._head.site

    @property
    def malformed(self) -> int:
        """How many records could not be read."""
        return len(self._malformed)

    async def batch(self) -> Batch:
        """The records that can be read, as a batch; those that cannot are noted."""
        for position, raw in enumerate(self._raws):
            if position % _ROWS_AT_ONCE == _ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                self._records.append(_record(raw))
            except (msgspec.MsgspecError, ValueError) as exc:
                self._malformed.append((position, _verdict(raw, exc)))
        head = self._head
        return Batch(
            site=head.site,
            records=self._records,
            high_water=head.high_water,
            holder=head.holder,
            lease=head.lease,
            receipts=head.receipts,
        )

    def receipt(self, stored: Receipt) -> Receipt:
        """The verdicts on all records, in the batch's order. Some records may have none: the centre was slow."""
        if not self._malformed:
            return stored
        unreadable = {at for at, _ in self._malformed}
        readable = [at for at in range(len(self._raws)) if at not in unreadable]
        placed = list(self._malformed)
        told = iter(stored.verdicts)
        verdict = next(told, None)
        for at, record in zip(readable, self._records, strict=True):
            if verdict is not None and (verdict.call_sid, verdict.revision) == (record.call_sid, record.revision):
                placed.append((at, verdict))
                verdict = next(told, None)
        return Receipt([verdict for _, verdict in sorted(placed, key=_position)], stored.number)


class BatchReader:
    """Cuts bodies into records.

    A list would grow by 64 bytes for every two of a body full of zeros. A struct of as many members as a batch may have
    records does not: msgspec skips what an array has beyond that without making anything of it.
    """

    def __init__(self, most_records: int) -> None:
        self._most = most_records
        places = [(f"record_{at}", msgspec.Raw, None) for at in range(most_records + 1)]
        records = msgspec.defstruct("Records", places, array_like=True, frozen=True)
        head = msgspec.defstruct("Head", [("records", records)], bases=(_Head,), frozen=True)
        self._decoder: msgspec.json.Decoder[_Head] = msgspec.json.Decoder(head)

    def open(self, body: bytes) -> Incoming:
        """Raises Malformed or TooLarge."""
        try:
            head = self._decoder.decode(body)
        except msgspec.ValidationError as exc:
            raise Malformed(_told(exc)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Malformed("the body is no JSON") from None
        except RecursionError:
            raise Malformed("the JSON is nested too deeply") from None
        places = msgspec.structs.astuple(head.records)
        if places[self._most] is not None:
            raise TooLarge(f"the batch has more than {self._most} records")
        return Incoming(head, places[: places.index(None)])


def body_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON schema of a batch for the OpenAPI document, and the schemas it refers to."""
    (head, call), parts = msgspec.json.schema_components([_Head, _OpenCall], ref_template="#/components/schemas/{name}")
    schema: dict[str, Any] = parts.pop(_last(head)) | {"title": "Batch"}
    schema["properties"]["records"] = {"type": "array", "items": call}
    return schema, parts


def _last(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _record(raw: msgspec.Raw) -> CallRecord:
    values: list[Any] = list(msgspec.structs.astuple(_call.decode(raw)))
    for place in _JSON_PLACES:
        text = bytes(values[place]).decode()
        if not text.startswith("["):
            raise msgspec.ValidationError(f"Expected `array` - at `$.{CallRecord._fields[place]}`")
        values[place] = text
    return CallRecord(*values)


def _verdict(raw: msgspec.Raw, exc: Exception) -> RecordReceipt:
    try:
        named = _named.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        named = _Named()
    return RecordReceipt(named.call_sid, named.revision, Verdict.REJECTED, MALFORMED, _told(exc))


def _told(exc: Exception) -> str:
    if missing := _MISSING.search(str(exc)):
        return f"the member {missing[1]} is missing"
    if at := _AT.search(str(exc)):
        return f"the member {at[1]} is not what the wire says"
    return "it is not what the wire says"


def _position(placed: Sequence[Any]) -> int:  # Any: a position and its verdict
    position: int = placed[0]
    return position
