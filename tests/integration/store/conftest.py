"""An open store in a directory of its own, and a clock that tells one moment."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.store.engine import Store, open_store
from agent.store.journal import Journal
from agent.store.outbox import SqliteOutbox
from agent.store.repository import Repository
from agent.store.writer import Writer
from tests.integration.store.facts import LATER


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edge.db"


@pytest.fixture
async def store(database: Path) -> AsyncIterator[Store]:
    async with open_store(database) as opened:
        yield opened


@pytest.fixture
async def writer(store: Store) -> Writer:
    return await Writer.over(store.connection, now=lambda: LATER)


@pytest.fixture
def outbox(store: Store, writer: Writer) -> SqliteOutbox:
    return SqliteOutbox(store, writer, site="berlin")


@pytest.fixture
def journal(store: Store, writer: Writer) -> Journal:
    return Journal(store, writer)


@pytest.fixture
def repository(store: Store, writer: Writer) -> Repository:
    return Repository(store, writer)
