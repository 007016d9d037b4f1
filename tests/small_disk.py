"""A file system of some megabytes, with a real end: ext4 in a file, or tmpfs where there are no loop devices."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_CHUNKS = (1 << 20, 4096, 1)
_TOP_UP_SECONDS = 0.1


class SmallDisk:
    """Mounted at `path`. `fill` leaves not a byte, and takes what others give up, as a log that runs away does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"
        self._filling: threading.Thread | None = None
        self._enough = threading.Event()

    def fill(self) -> None:
        self._top_up()
        self._enough.clear()
        self._filling = threading.Thread(target=self._keep_full, daemon=True)
        self._filling.start()

    def make_room(self) -> None:
        self._enough.set()
        if self._filling is not None:
            self._filling.join()
            self._filling = None
        self._ballast.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.path).free

    def _keep_full(self) -> None:
        while not self._enough.wait(_TOP_UP_SECONDS):
            self._top_up()

    def _top_up(self) -> None:
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in _CHUNKS:
                with suppress(OSError):
                    while ballast.write(bytes(size)) == size:
                        pass
            with suppress(OSError):
                os.fsync(ballast.fileno())


@contextmanager
def small_disk(directory: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Skips without the right to mount; in CI that is a failure."""
    place = directory / "disk"
    place.mkdir()
    image = directory / "disk.img"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    ways = (
        [["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(image)],
         ["mount", "-o", "loop", str(image), str(place)]],
        [["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]],
    )  # fmt: skip
    trouble = ""
    for way in ways:
        trouble = _run(way)
        if not trouble:
            break
    else:
        reason = f"no small file system can be mounted here ({trouble}); run as root"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    disk = SmallDisk(place)
    try:
        yield disk
    finally:
        disk.make_room()
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        image.unlink()


def _run(commands: list[list[str]]) -> str:
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as exc:
            return str(exc)
        if done.returncode:
            return done.stderr.strip() or command[0]
    return ""
