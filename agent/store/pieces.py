"""How our own files are framed: pieces that are whole or worthless, so that a file may end anywhere.

u8 kind, u32 length, u32 CRC-32 of the body, body; little-endian. No kind is 0 and no body empty: zeros are no pieces.
"""

import struct
import zlib
from io import BufferedIOBase
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("<BII")


class Piece(NamedTuple):
    """One piece of a file; `body` is None if it is damaged."""

    kind: int
    body: bytes | None


def piece(kind: int, body: bytes) -> bytes:
    """What is appended for a body."""
    return _HEAD.pack(kind, len(body), zlib.crc32(body)) + body


class PieceReader:
    """Reads piece by piece from where a stream stands; `read` counts the bytes of those that were given."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self.read = 0
        self.was_cut = False  # the stream ends in the middle of a piece
        self.is_lost = False  # a kind or length that cannot be: where the next piece begins cannot be told

    def next(self, max_bytes: int) -> Piece | None:
        """The next piece, or None at the end. One that claims a longer body than `max_bytes` ends everything."""
        head = self._stream.read(_HEAD.size)
        if not head:
            return None
        if len(head) == _HEAD.size:
            kind, length, checksum = _HEAD.unpack(head)
            if length > max_bytes or not kind or not length:
                self.is_lost = True
                return None
            body = self._stream.read(length)
            if len(body) == length:
                self.read += _HEAD.size + length
                return Piece(kind, body if zlib.crc32(body) == checksum else None)
        self.was_cut = True
        return None
