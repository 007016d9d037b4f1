"""The homes in which every test of the store's contract runs."""

from collections.abc import AsyncIterator

import pytest

from agent.live.store import ContextStore
from config.settings import LiveSettings
from tests.valkey_server import Valkey, valkey, valkey_server

__all__ = ["home", "store", "valkey", "valkey_server"]


@pytest.fixture(params=["memory", "tcp", "unix"])
def home(request: pytest.FixtureRequest) -> LiveSettings:
    """An empty home."""
    if request.param == "memory":
        return LiveSettings(url="memory://")
    server: Valkey = request.getfixturevalue("valkey")
    return server.settings(server.tcp_url if request.param == "tcp" else server.unix_url)


@pytest.fixture
async def store(home: LiveSettings) -> AsyncIterator[ContextStore]:
    """The store there."""
    async with ContextStore.open(home) as store:
        yield store
