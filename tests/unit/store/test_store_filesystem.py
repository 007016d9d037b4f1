"""Network file systems are recognised from the kernel's own list of mounts."""

from pathlib import Path

import pytest

from agent.store.filesystem import network_filesystem

MOUNTS = """\
22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:45 / /mnt/share rw,relatime shared:9 - nfs4 server:/share rw,vers=4.2
91 22 0:46 / /mnt/share/local rw,relatime - tmpfs tmpfs rw
92 22 0:47 / /mnt/with\\040space rw - cifs //server/c rw
93 22 0:48 / /mnt/home rw - fuse.sshfs user@host: rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/sentiric-edge", None),
        ("/mnt/share/edge", "nfs4"),
        ("/mnt/share/local/edge", None),
        ("/mnt/shared", None),
        ("/mnt/with space/edge", "cifs"),
        ("/mnt/home/edge", "fuse.sshfs"),
    ],
)
def test_the_nearest_mount_point_decides(path: str, kind: str | None) -> None:
    assert network_filesystem(Path(path), MOUNTS) == kind


def test_without_a_list_of_mounts_nothing_is_claimed() -> None:
    assert network_filesystem(Path("/var"), "") is None
