"""Tells whether a path lies on a network file system, where SQLite's locks and WAL cannot be trusted."""

from pathlib import Path

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ocfs2", "gfs2", "davfs"}
)


def network_filesystem(path: Path, mountinfo: str) -> str | None:
    """The kind of network file system `path` lies on, by the text of /proc/self/mountinfo; None if it is local."""
    kind, longest = None, -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mount_point = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # A later line of the same mount point covers the earlier one.
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= longest:
            kind, longest = after.split(" ", 1)[0], len(mount_point.parts)
    if kind is None:
        return None
    return kind if kind in _NETWORK or kind.startswith("fuse.ssh") else None
