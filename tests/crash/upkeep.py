"""What the agent does to its database by the clock and once a day, all of it at once: for kills in its middle.

python -m tests.crash.upkeep DATABASE
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.store.engine import open_store
from agent.store.retention import Retention
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
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(_keep_up(Path(sys.argv[1])))
