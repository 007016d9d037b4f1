"""Which installation this is: the same while the machine is up and the database the same file, else another one."""

import hashlib
from pathlib import Path
from typing import Final

from agent.store.faults import faults_of

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def holder_of(database: Path) -> str:
    """A hash of boot id, device and inode: a copy of a machine or of a database has another one.

    Raises StoreUnavailable if the file is not there.
    """
    with faults_of(database):
        boot_id, file = _BOOT_ID.read_text(encoding="ascii").strip(), database.stat()
    return hashlib.sha256(f"{boot_id} {file.st_dev} {file.st_ino}".encode()).hexdigest()
