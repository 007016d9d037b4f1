"""Which backups are the clock's, and which of them go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.store.backup_files import (
    BackupFile,
    all_in,
    doomed,
    left_unfinished,
    named_by_clock,
    named_by_hand,
    scheduled_in,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def backup(day: int) -> BackupFile:
    at = NOON + timedelta(days=day)
    return BackupFile(Path(f"/b/{named_by_clock('berlin', at)}"), at, 1, is_scheduled=True)


def test_the_oldest_go_beyond_what_is_kept() -> None:
    files = [backup(day) for day in (3, 1, 2, 0)]
    assert doomed(files, newest=files[0], keep=3) == [backup(0)]
    assert doomed(files, newest=files[0], keep=1) == [backup(0), backup(1), backup(2)]
    assert doomed(files, newest=files[0], keep=9) == []


def test_the_newest_stays_also_where_others_bear_a_later_time_and_these_go_first() -> None:
    files = [backup(3000), backup(3001), backup(-1), backup(0)]
    assert doomed(files, newest=backup(0), keep=2) == [backup(3000), backup(3001)]
    assert backup(0) not in doomed(files, newest=backup(0), keep=1)


def test_only_what_bears_the_very_pattern_of_this_site_is_ever_looked_at(tmp_path: Path) -> None:
    ours = named_by_clock("berlin", NOON)
    for name in (
        ours, named_by_hand(NOON), named_by_clock("berlin-2", NOON), named_by_clock("other", NOON), "edge.db",
        f"{ours}.bak", f"old-{ours}", f"{ours}.part", f"{ours}.part-wal", f"{named_by_clock('other', NOON)}.part",
        f"{named_by_hand(NOON)}.part", "edge-berlin-20269999T999999Z.scheduled.db",
    ):  # fmt: skip
        (tmp_path / name).touch()
    directory, link = (tmp_path / named_by_clock("berlin", NOON + timedelta(days=day)) for day in (1, 2))
    directory.mkdir()
    link.symlink_to(tmp_path / "edge.db")

    assert [file.path.name for file in scheduled_in(tmp_path, "berlin")] == [ours]
    assert {file.path.name for file in all_in(tmp_path, "berlin")} == {ours, named_by_hand(NOON)}
    assert {file.name for file in left_unfinished(tmp_path, "berlin")} == {f"{ours}.part", f"{ours}.part-wal"}
