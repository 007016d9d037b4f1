"""TLS to a real PostgreSQL with certificates made for the test.

The wheel's PostgreSQL is built without TLS, so a small door in front of it speaks it.
"""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sync.central.connection import CentralAddress, connect
from sync.errors import UplinkRefused
from tests.postgres import PostgresDatabase

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")

_MAKE_CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
    *("-addext", "subjectAltName=IP:127.0.0.1"),
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, which is its own CA, and another one."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "others"):
        subprocess.run(
            [*_MAKE_CERTIFICATE, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            cwd=directory,
            check=True,
            capture_output=True,
        )
    return directory


@pytest.fixture
async def door(central_database: PostgresDatabase, certificates: Path) -> AsyncIterator[int]:
    """The port on which the database is reached by TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "ours.pem", certificates / "ours.key")
    postgres = central_database.server

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)  # the request for TLS
            writer.write(b"S")
            await writer.start_tls(context)
            inner_reader, inner_writer = await asyncio.open_connection(postgres.host, postgres.port)
            async with asyncio.TaskGroup() as both:
                both.create_task(pass_on(reader, inner_writer))
                both.create_task(pass_on(inner_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            return  # a client that does not trust us
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def through(
    door: int, database: PostgresDatabase, *, ca: Path, host: str = "127.0.0.1", more: str = ""
) -> CentralAddress:
    password = database.server.password
    return CentralAddress(f"postgresql://postgres:{password}@{host}:{door}/{database.name}{more}", tls_ca_file=ca)


async def answers(address: CentralAddress) -> bool:
    connection = await connect(address, application_name="test")
    try:
        return bool(await connection.fetchval("SELECT true"))
    finally:
        await connection.close()


async def test_a_certificate_of_the_named_ca_is_accepted(
    door: int, central_database: PostgresDatabase, certificates: Path
) -> None:
    assert await answers(through(door, central_database, ca=certificates / "ours.pem"))


async def test_a_certificate_of_another_ca_is_refused_with_what_to_do(
    door: int, central_database: PostgresDatabase, certificates: Path
) -> None:
    with pytest.raises(UplinkRefused, match=r"certificate of 127\.0\.0\.1.* is not trusted .*name its CA in tls_ca"):
        await answers(through(door, central_database, ca=certificates / "others.pem"))


async def test_a_certificate_for_another_name_is_refused_unless_only_the_ca_is_asked_for(
    door: int, central_database: PostgresDatabase, certificates: Path
) -> None:
    ours = certificates / "ours.pem"

    with pytest.raises(UplinkRefused, match="is not trusted"):
        await answers(through(door, central_database, ca=ours, host="localhost"))
    assert await answers(through(door, central_database, ca=ours, host="localhost", more="?sslmode=verify-ca"))


async def test_a_server_without_tls_is_refused_when_tls_is_due(
    central_database: PostgresDatabase, certificates: Path
) -> None:
    with pytest.raises(UplinkRefused, match="offers no TLS; switch it on there, or add"):
        await answers(through(central_database.server.port, central_database, ca=certificates / "ours.pem"))
