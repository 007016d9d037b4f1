"""What the agent does to its database by the clock and once a day, all of it at once: for kills in its middle.

python -m tests.crash.upkeep DATABASE
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.store.engine import Store, open_store
from agent.store.retention import Retention
from agent.store.upkeep import Upkeep
from agent.store.writer import Writer
from config.settings import RetentionSettings, StoreSettings, TenancySettings


def _in_two_days() -> datetime:
    return datetime.now(UTC) + timedelta(days=2)  # calls that changed today are never dropped


async def _keep_up(database: Path) -> None:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection, now=_in_two_days)
        retention = await Retention.over(
            store,
            writer,
            settings=RetentionSettings(),
            journal_settings=StoreSettings(),
            tenancy=TenancySettings(),
            has_centre=True,
        )
        await writer.cut_log()
        await retention.drop_journal(lambda: False)
        await retention.drop_synced_calls(lambda: False)
        await writer.cut_log()
        await _back_up_twice(store)
    print("done", flush=True)


async def _back_up_twice(store: Store) -> None:
    """So that there is an older one to be removed."""
    hours = 0

    def since_boot() -> float:
        return hours * 3600.0

    settings = StoreSettings(backup_every_hours=1, backup_keep=1)
    directory = store.path.parent / "backups"
    upkeep = Upkeep(store, site="here", settings=settings, directory=directory, since_boot=since_boot)
    for hours in (0, 2, 4):  # noqa: B007 - `since_boot` reads it
        await upkeep.run_due()


if __name__ == "__main__":
    asyncio.run(_keep_up(Path(sys.argv[1])))
