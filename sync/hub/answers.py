"""Answers as JSON, packed where the site takes that and it pays."""

from http import HTTPStatus
from typing import Final

import orjson
import zstandard
from starlette.requests import Request
from starlette.responses import Response

from sync.records import Receipt

_PACK_FROM_BYTES: Final = 1024
_FAST: Final = 1  # zstd's level: the hub serves many


def json_answer(request: Request, value: object, *, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The value as JSON; dataclasses, dates and aware datetimes have their usual forms."""
    body = orjson.dumps(value)
    headers = {"Cache-Control": "no-store"}
    if len(body) >= _PACK_FROM_BYTES and "zstd" in request.headers.get("accept-encoding", ""):
        body = zstandard.ZstdCompressor(level=_FAST).compress(body)
        headers["Content-Encoding"] = "zstd"
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def receipt_members(receipt: Receipt) -> dict[str, object]:
    """A receipt as it goes over the wire: members that say nothing are left out."""
    verdicts: list[dict[str, object]] = []
    for verdict in receipt.verdicts:
        told: dict[str, object] = {
            "call_sid": verdict.call_sid,
            "revision": verdict.revision,
            "verdict": verdict.verdict,
        }
        for name in ("code", "reason", "held_revision"):
            if (value := getattr(verdict, name)) is not None:
                told[name] = value
        verdicts.append(told)
    return {"receipt": receipt.number, "verdicts": verdicts}
