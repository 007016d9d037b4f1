"""The journal's unit: what one PBX said between two commits, byte for byte, with the time each frame came.

A stored blob is one version byte and a body. Version 1: the body is a zstd frame holding, all little-endian,

    u32            how many frames there are
    u64 per frame  microseconds between the segment's first moment and the frame's arrival
    u32 per frame  the frame's length in bytes
    bytes          the frames, one after the other

Columns instead of frame by frame: they are packed in one go and compress better.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import zstandard

_VERSION = 1
_LEVEL = 3
# A segment holds what came in some 50 ms; far more than that is no segment but damage.
_MAX_BODY_BYTES = 1 << 28


class SegmentDamaged(ValueError):
    """A stored blob is no segment of a version this program knows."""


class Frame(NamedTuple):
    """Bytes as received, and how many microseconds after the segment's first moment."""

    offset_us: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames of one connection. `id` comes from `Writer.next_segment_id`, so that anchors can name it beforehand."""

    id: int
    pbx: str
    boot_id: str
    connection: int  # grows with every connection made to this PBX since the agent started
    first_at: datetime  # wall clock, aware UTC
    monotonic_ns: int  # monotonic clock at the same moment
    frames: Sequence[Frame]

    @property
    def last_at(self) -> datetime:
        """When the last frame came."""
        return self.first_at + timedelta(microseconds=self.frames[-1].offset_us if self.frames else 0)


def encode(frames: Sequence[Frame]) -> bytes:
    """The blob that keeps `frames`."""
    count = len(frames)
    head = struct.pack(
        f"<I{count}Q{count}I", count, *[frame[0] for frame in frames], *[len(frame[1]) for frame in frames]
    )
    body = b"".join([head, *[frame[1] for frame in frames]])
    return bytes([_VERSION]) + zstandard.ZstdCompressor(level=_LEVEL).compress(body)


def decode(blob: bytes) -> list[Frame]:
    """The frames a blob keeps. Raises SegmentDamaged for anything `encode` did not write."""
    if not blob or blob[0] != _VERSION:
        raise SegmentDamaged(f"version {blob[0]} is unknown" if blob else "the blob is empty")
    try:
        size = zstandard.frame_content_size(blob[1:])
        if not 0 <= size <= _MAX_BODY_BYTES:
            raise SegmentDamaged(f"a size of {size} bytes cannot be")
        body = zstandard.ZstdDecompressor().decompress(blob[1:])
        (count,) = struct.unpack_from("<I", body)
        offsets = struct.unpack_from(f"<{count}Q", body, 4)
        lengths = struct.unpack_from(f"<{count}I", body, 4 + 8 * count)
    except (zstandard.ZstdError, struct.error) as exc:
        raise SegmentDamaged(str(exc)) from exc
    position = 4 + 12 * count
    if position + sum(lengths) != len(body):
        raise SegmentDamaged(f"{len(body)} bytes where {position + sum(lengths)} were announced")
    frames = []
    for offset, length in zip(offsets, lengths, strict=True):
        frames.append(Frame(offset, body[position : position + length]))
        position += length
    return frames
