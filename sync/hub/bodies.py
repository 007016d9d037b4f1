"""Reading a request's body: unpacked as it comes, bounded in size, ratio, window and time, whatever is sent."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import zstandard
from starlette.requests import Request

from sync.hub.limits import MEBIBYTE, Limits, Share
from sync.hub.problems import Malformed, TooLarge, TooSlow, Unsupported

# RFC 9659: no decoder of zstd content needs a larger window.
_MAX_WINDOW_BYTES: Final = 8 * MEBIBYTE
# Four bytes can be a block of 128 KiB, so a piece of this size unpacks to 8 MiB at most.
_ZSTD_PIECE_BYTES: Final = 256
_ZSTD_HEADER_BYTES: Final = 18  # the longest header of a frame
_GZIP_PIECE_BYTES: Final = 256 * 1024
_YIELD_BYTES: Final = 256 * 1024  # unpacked before other requests get their turn


class Unpacker(Protocol):
    """Takes a body apart as it comes."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, in bounded pieces. Raises Refusals."""
        ...

    def finish(self) -> None:
        """The body is over; raises Malformed if it was cut."""
        ...


class PlainUnpacker:
    """No content encoding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See `Unpacker`."""
        yield data

    def finish(self) -> None:
        """See `Unpacker`."""


class GzipUnpacker:
    """One gzip member."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See `Unpacker`."""
        try:
            while data:
                yield self._stream.decompress(data, _GZIP_PIECE_BYTES)
                if self._stream.unused_data:
                    raise Malformed("something follows the end of the gzip stream")
                data = self._stream.unconsumed_tail
        except zlib.error:
            raise Malformed("the body is no gzip stream") from None

    def finish(self) -> None:
        """See `Unpacker`."""
        if not self._stream.eof:
            raise Malformed("the gzip stream is cut")


class ZstdUnpacker:
    """One zstd frame; `share` is charged for the window it asks for."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._head = b""
        self._stream: zstandard.ZstdDecompressionObj | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See `Unpacker`."""
        if self._stream is None:
            self._head += data
            if len(self._head) < _ZSTD_HEADER_BYTES:
                return
            self._stream = self._begin()
            data = self._head
        yield from self._unpack(self._stream, data)

    def finish(self) -> None:
        """See `Unpacker`. A body shorter than the longest header has not been looked at until now: it is refused,
        since even an empty batch is longer."""
        if self._stream is None or not self._stream.eof:
            raise Malformed("the zstd frame is cut")

    def _begin(self) -> "zstandard.ZstdDecompressionObj":
        try:
            window = zstandard.get_frame_parameters(self._head).window_size
        except zstandard.ZstdError:
            raise Malformed("the body is no zstd frame") from None
        if window > _MAX_WINDOW_BYTES:
            raise Unsupported(f"the zstd window is larger than {_MAX_WINDOW_BYTES} bytes (RFC 9659)")
        self._share.take(window)
        return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()

    @staticmethod
    def _unpack(stream: "zstandard.ZstdDecompressionObj", data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_PIECE_BYTES):
            if stream.eof:
                raise Malformed("something follows the end of the zstd frame")
            try:
                yield stream.decompress(data[start : start + _ZSTD_PIECE_BYTES])
            except zstandard.ZstdError:
                raise Malformed("the body is no zstd frame") from None
        if stream.unused_data:
            raise Malformed("something follows the end of the zstd frame")


@dataclass(frozen=True, slots=True)
class Body:
    """A body, and how many bytes of it went over the line."""

    data: bytes
    sent_bytes: int


async def read_batch(request: Request, limits: Limits, share: Share) -> Body:
    """The unpacked body of a batch. Raises Refusals and ClientDisconnect."""
    unpacker = _unpacker(request, share)
    _check_length(request, limits.batch_bytes)
    pieces: list[bytes] = []
    size = sent = unyielded = 0
    async for chunk in _chunks(request, limits.body_seconds):
        sent += len(chunk)
        if sent > limits.batch_bytes:
            raise _too_large(limits.batch_bytes)
        for piece in unpacker.feed(chunk):
            if piece:
                share.take(len(piece))
                pieces.append(piece)
            size += len(piece)
            if size > limits.batch_bytes:
                raise _too_large(limits.batch_bytes)
            if size > max(MEBIBYTE, sent * limits.ratio):
                raise TooLarge(f"the body unpacks to more than {limits.ratio} times its size")
            unyielded += len(piece)
            if unyielded > _YIELD_BYTES:
                unyielded = 0
                await asyncio.sleep(0)
    unpacker.finish()
    return Body(b"".join(pieces), sent)


async def read_message(request: Request, limits: Limits) -> bytes:
    """A small body, which comes as it is."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Unsupported("only batches may be packed")
    _check_length(request, limits.message_bytes, code="message_too_large")
    body = bytearray()
    async for chunk in _chunks(request, limits.body_seconds):
        body += chunk
        if len(body) > limits.message_bytes:
            raise _too_large(limits.message_bytes, code="message_too_large")
    return bytes(body)


def _unpacker(request: Request, share: Share) -> Unpacker:
    match request.headers.get("content-encoding", "identity").strip().lower():
        case "identity" | "":
            return PlainUnpacker()
        case "gzip" | "x-gzip":
            return GzipUnpacker()
        case "zstd":
            return ZstdUnpacker(share)
        case _:
            raise Unsupported("the content encoding is none of zstd, gzip, identity")


def _check_length(request: Request, most: int, *, code: str | None = None) -> None:
    """h11 has refused anything but digits."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Unsupported("the content type is not application/json", code="unsupported_media")
    if int(request.headers.get("content-length", "0")) > most:
        raise _too_large(most, code=code)


def _too_large(most: int, *, code: str | None = None) -> TooLarge:
    return TooLarge(f"the body is larger than {most} bytes", code=code)


async def _chunks(request: Request, seconds: float) -> AsyncIterator[bytes]:
    """The body as it comes, all of it within the time; raises TooSlow and ClientDisconnect."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    async with aclosing(request.stream()) as stream:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise TooSlow(f"the body took longer than {seconds:g} s") from None
            if chunk is None:
                return
            if chunk:
                yield chunk
