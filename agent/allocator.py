"""glibc's allocator, told to give back what is free: a daemon that was busy once shall not stay large for years."""

import ctypes
from typing import Final

_KIBIBYTE: Final = 1024
# mallopt(3). A heap for each of the many threads keeps what each once needed; and once a large block was freed, glibc
# takes the next ones from a heap that grows, and can seldom shrink.
_ARENA_MAX: Final = (-8, 2)
_MMAP_THRESHOLD: Final = (-3, 128 * _KIBIBYTE)
_TRIM_THRESHOLD: Final = (-1, 128 * _KIBIBYTE)


def give_back_what_is_free() -> None:
    """For this process; before it has threads. Where the C library has no such settings, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(parameter, value)
