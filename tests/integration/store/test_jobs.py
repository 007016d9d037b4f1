"""The work beside capturing: it runs in any time zone, and tells when the database is damaged."""

import asyncio
from pathlib import Path

import pytest

from agent.jobs import Jobs
from agent.store import engine, upkeep
from agent.store.engine import Store, open_store
from agent.store.lease import lock_file
from agent.store.retention import Retention
from agent.store.upkeep import Upkeep
from agent.store.writer import Writer
from config.settings import RetentionSettings, StoreSettings, TenancySettings


async def _run_briefly(jobs: Jobs) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await jobs.run()


async def test_a_time_zone_nobody_knows_is_no_hindrance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Nowhere/At-All")

    await _run_briefly(await _jobs(store))

    assert store.damage.told is None


@pytest.mark.parametrize("found", [[], ["row 7 missing from index"]])
async def test_a_database_too_large_for_a_check_at_the_start_is_checked_once_the_agent_runs(
    database: Path, monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    async with open_store(database):
        pass
    lock_file(database).write_text("{}")  # as a killed holder leaves it
    monkeypatch.setattr(engine, "_CHECK_AT_START_BYTES", 0)

    async def quick_check(path: Path) -> list[str]:
        assert path == database
        return found

    monkeypatch.setattr(upkeep, "quick_check", quick_check)
    async with open_store(database) as store:
        await _run_briefly(await _jobs(store))

    assert store.damage.told == (f"{database} is damaged (row 7 missing from index)" if found else None)
    assert store.damage.met.is_set() == bool(found)


async def _jobs(store: Store) -> Jobs:
    return Jobs(
        retention=await _retention(store),
        upkeep=Upkeep(store, site="here", settings=StoreSettings(), directory=store.path.parent / "backups"),
        reconcile=_nothing,
        verify=_nothing,
    )


async def _retention(store: Store) -> Retention:
    return await Retention.over(
        store,
        await Writer.over(store.connection),
        settings=RetentionSettings(),
        journal_settings=StoreSettings(),
        tenancy=TenancySettings(),
        has_centre=True,
    )


async def _nothing() -> None:
    return None
