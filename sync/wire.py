"""Wire version 1 as an agent speaks and hears it: requests as JSON text, answers back as values. See docs/hub.md.

A record's JSON members are JSON text already and go into the body as they stand, so nothing but their validity is
looked at. What the hub reads of a request, it reads in `sync.hub`: there nothing is trusted.
"""

from collections.abc import Sequence
from typing import Final, Literal

import orjson
import zstandard
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from sync.records import Batch, CallRecord, DayDigest, Greeting, HeldCall, Receipt, RecordReceipt, Welcome

VERSION: Final = 1
PREFIX: Final = f"/v{VERSION}"
ZSTD_LEVEL: Final = 3
# A window of half a MiB instead of two, of which each body under way has one.
_ZSTD: Final = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=19)

_NO_JSON: Final = "the call holds text that JSON cannot carry"

JSON_MEMBERS: Final = ("legs", "timeline", "full_transcript", "tasks", "interactions")


class NotEncodable(ValueError):
    """A record holds what JSON cannot: broken JSON text or half a character. Others are as good as before."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a site is given for its enrolment code. Unknown members are ignored, here as everywhere."""

    site: str
    credential: str
    tenants: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Enrolled(site={self.site!r}, tenants={self.tenants!r})"


@dataclass(frozen=True, slots=True)
class ReceiptAnswer:
    """Verdicts on a batch, and the number of its receipt."""

    receipt: int
    verdicts: list[RecordReceipt]


@dataclass(frozen=True, slots=True)
class DaysAnswer:
    """The centre's days."""

    days: list[DayDigest]


@dataclass(frozen=True, slots=True)
class CallsAnswer:
    """A page of the centre's calls of a day."""

    calls: list[HeldCall]


@dataclass(frozen=True, slots=True)
class CredentialAnswer:
    """A new credential."""

    credential: str

    def __repr__(self) -> str:
        return "CredentialAnswer()"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the hub tells it (RFC 9457); `code` is for programs, `detail` for people."""

    status: int
    code: str
    title: str = ""
    detail: str = ""
    type: Literal["about:blank"] | str = "about:blank"


_RECEIPT = TypeAdapter(ReceiptAnswer)
_WELCOME = TypeAdapter(Welcome)
_DAYS = TypeAdapter(DaysAnswer)
_CALLS = TypeAdapter(CallsAnswer)
_ENROLLED = TypeAdapter(Enrolled)
_CREDENTIAL = TypeAdapter(CredentialAnswer)
_PROBLEM = TypeAdapter(Problem)


def encode_record(record: CallRecord) -> bytes:
    """One record as JSON. Raises NotEncodable."""
    members: dict[str, object] = dict(zip(CallRecord._fields, record, strict=True))
    try:
        for name in JSON_MEMBERS:
            text: str = getattr(record, name)
            if text != "[]":
                orjson.loads(text)  # one broken text would make the whole batch unreadable
            members[name] = orjson.Fragment(text)
        return orjson.dumps(members)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, UnicodeError) as exc:
        raise NotEncodable(_NO_JSON) from exc


def check_record(text: bytes) -> None:
    """Raises NotEncodable for what is not JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise NotEncodable(_NO_JSON) from exc


def encode_batch(batch: Batch, records: Sequence[bytes]) -> list[bytes]:
    """The body of a batch, in pieces; its records were encoded before, in the batch's order."""
    head = orjson.dumps({name: getattr(batch, name) for name in Batch.__dataclass_fields__ if name != "records"})
    pieces = [head[:-1], b',"records":[']
    for record in records:
        pieces += (record, b",")
    if records:
        pieces.pop()
    return [*pieces, b"]}"]


def encode_greeting(greeting: Greeting) -> bytes:
    """The body of a handshake, with the wire versions this program speaks."""
    members = {name: getattr(greeting, name) for name in Greeting.__dataclass_fields__}
    return orjson.dumps(members | {"versions": [VERSION]})


def compress(pieces: Sequence[bytes]) -> tuple[bytes, int]:
    """The body for `Content-Encoding: zstd`, and its size before.

    The frame tells that size, so that the hub sets aside no more for a small body than it needs.
    """
    body = b"".join(pieces)
    return zstandard.ZstdCompressor(compression_params=_ZSTD).compress(body), len(body)


def decode_receipt(body: bytes) -> Receipt:
    """The answer to a batch. Raises ValueError for anything else, as all of these do."""
    told = _RECEIPT.validate_json(body)
    return Receipt(told.verdicts, told.receipt)


def decode_welcome(body: bytes) -> Welcome:
    """The answer to a greeting."""
    return _WELCOME.validate_json(body)


def decode_days(body: bytes) -> list[DayDigest]:
    """The centre's days."""
    return _DAYS.validate_json(body).days


def decode_calls(body: bytes) -> list[HeldCall]:
    """A page of the centre's calls of a day."""
    return _CALLS.validate_json(body).calls


def decode_enrolled(body: bytes) -> Enrolled:
    """The answer to an enrolment code."""
    return _ENROLLED.validate_json(body)


def decode_credential(body: bytes) -> str:
    """The new credential after a rotation."""
    return _CREDENTIAL.validate_json(body).credential


def decode_problem(body: bytes) -> Problem:
    """What an answer other than 200 tells."""
    return _PROBLEM.validate_json(body)
