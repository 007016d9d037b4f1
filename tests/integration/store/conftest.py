"""An open store in a directory of its own, and a clock that tells one moment."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.store.engine import Store, new_database, open_store
from agent.store.journal import Journal
from agent.store.outbox import SqliteOutbox
from agent.store.repository import Repository
from agent.store.writer import Writer
from tests.integration.store.facts import LATER


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edge.db"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A database with one tenant, and the settings beside it."""
    settings = tmp_path / "agent.toml"
    settings.write_text(f'state_directory = "{tmp_path}"\nsite = "here"\n')
    settings.chmod(0o600)
    path = tmp_path / "edge.db"
    with closing(new_database(path)) as connection:
        connection.execute("INSERT INTO tenant VALUES (1, 'acme', 1)")
    return path


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
