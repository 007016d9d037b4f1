"""The lines to a hub: TLS that is verified, a proxy, and servers that are none."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sync.errors import SyncError, UplinkRefused, UplinkUnavailable
from sync.hub.serve import TlsFiles
from sync.hub_client import HubUplink
from sync.records import Greeting
from tests.hub_server import RunningHub, running_hub
from tests.integration.pbx.authority import Authority
from tests.integration.sync.site import to_hub
from tests.postgres import PostgresDatabase

GREETING = Greeting("istanbul", "1.2.3", "a-holder", "pbx-1", lease=None, lease_seconds=60)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a port of this machine."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def fault_of(uplink: HubUplink) -> SyncError:
    """Why it cannot greet."""
    try:
        with pytest.raises(SyncError) as caught:
            await uplink.greet(GREETING)
    finally:
        await uplink.close()
    assert "geheim" not in repr(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def tls_hub(central_database: PostgresDatabase, authority: Authority) -> AsyncIterator[RunningHub]:
    """A hub whose certificate is for `localhost` and of an authority of its own."""
    authority.server("localhost")
    files = authority.ca_file.with_name("localhost.pem"), authority.ca_file.with_name("localhost.key")
    async with running_hub(central_database, tls=TlsFiles(*files)) as hub:
        yield hub


async def test_a_hub_with_a_private_authority_is_trusted_when_that_is_pinned(
    tls_hub: RunningHub, authority: Authority
) -> None:
    url = f"https://localhost:{tls_hub.port}"
    uplink = to_hub(tls_hub.port, tls_hub.credential, url=url, tls_ca_file=authority.ca_file)

    assert (await uplink.greet(GREETING)).tenants == ("acme",)
    await uplink.close()


async def test_an_unknown_authority_and_a_wrong_name_are_refused_with_what_to_do(
    tls_hub: RunningHub, authority: Authority
) -> None:
    unknown = await fault_of(to_hub(0, "geheim", url=f"https://localhost:{tls_hub.port}"))
    assert isinstance(unknown, UplinkRefused)
    assert "tls_ca_file" in str(unknown)

    address = f"https://127.0.0.1:{tls_hub.port}"
    wrong = await fault_of(to_hub(0, "geheim", url=address, tls_ca_file=authority.ca_file))
    assert isinstance(wrong, UplinkRefused)
    assert "use the name it is for" in str(wrong)


def expired(authority: Authority) -> tuple[Path, Path]:
    """A certificate for `localhost` that ended yesterday, and its key."""
    authority.server("localhost")
    directory = authority.ca_file.parent
    subprocess.run(
        ["openssl", "x509", "-req", "-in", "localhost.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-extfile", "localhost.ext", "-out", "expired.pem", "-days", "-1"],
        cwd=directory, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return directory / "expired.pem", directory / "localhost.key"


async def test_an_expired_certificate_is_refused_and_the_clock_is_named(authority: Authority) -> None:
    certificate, key = expired(authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async with serving(_hang_up, context) as port:
        url = f"https://localhost:{port}"
        fault = await fault_of(to_hub(0, "geheim", url=url, tls_ca_file=authority.ca_file))

    assert isinstance(fault, UplinkRefused)
    assert "expired" in str(fault)
    assert "clock" in str(fault)


async def test_a_proxy_leads_to_the_hub_and_never_sees_what_is_said(
    central_database: PostgresDatabase, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.server("hub.example")
    files = authority.ca_file.with_name("hub.example.pem"), authority.ca_file.with_name("hub.example.key")
    options = {"url": "https://hub.example", "tls_ca_file": authority.ca_file}
    seen = bytearray()
    async with (
        running_hub(central_database, tls=TlsFiles(*files)) as hub,
        serving(_proxy_to(hub.port, seen)) as port,
    ):
        for proxy in (f"http://127.0.0.1:{port}", None):
            uplink = to_hub(0, hub.credential, **options, proxy=proxy)
            assert (await uplink.greet(GREETING)).tenants == ("acme",)
            await uplink.close()
            assert bytes(seen).startswith(b"CONNECT hub.example:443 HTTP/1.1\r\n")
            assert hub.credential.encode() not in seen
            seen.clear()
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")  # the second time

        assert isinstance(await fault_of(to_hub(0, "geheim", **options, proxy="none")), UplinkUnavailable)
        await fault_of(to_hub(hub.port, "geheim"))  # on this machine
        assert not seen


async def test_a_proxy_that_asks_for_a_password_or_is_away_is_told(authority: Authority) -> None:
    async with serving(_answers(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as port:
        refused = await fault_of(to_hub(0, "geheim", url="https://hub.example", proxy=f"http://127.0.0.1:{port}"))
    away = await fault_of(to_hub(0, "geheim", url="https://hub.example", proxy=f"http://127.0.0.1:{port}"))

    assert isinstance(refused, UplinkRefused)
    assert "HTTPS_PROXY" in str(refused)
    assert isinstance(away, UplinkUnavailable)


def _head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        b"",
        _head("Content-Length: 2") + b"{}",
        _head("Content-Length: 6", "Content-Type: text/html") + b"<html>",
        _head("Content-Length: 100") + b"cut",
        _head("Content-Encoding: zstd", "Content-Length: 3") + b"abc",
        _head("Content-Encoding: br", "Content-Length: 3") + b"abc",
        b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Type: application/problem+json\r\nContent-Length: 9\r\n\r\n[[[[[[[[[",
    ],
)
async def test_whatever_is_no_hub_s_answer_is_tried_again(answer: bytes) -> None:
    async with serving(_answers(answer)) as port:
        assert isinstance(await fault_of(to_hub(port, "geheim")), UplinkUnavailable)


async def test_an_endless_answer_is_cut_and_a_silent_hub_given_up() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_head("Connection: close"))
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(endless) as port:
        assert "more than any answer can be" in str(await fault_of(to_hub(port, "geheim")))
    async with serving(silent) as port:
        fault = await fault_of(to_hub(port, "geheim", timeout_seconds=0.2))
        assert "did not answer within 0.2 s" in str(fault)


async def test_a_site_without_a_credential_is_told_how_to_get_one(tmp_path: Path) -> None:
    broken = tmp_path / "hub.credential"
    assert "edge-agent enroll" in str(await fault_of(to_hub(1, credential_file=broken)))
    broken.write_text("id.secret\nX-Injected: header\n")
    assert isinstance(await fault_of(to_hub(1, credential_file=broken)), UplinkRefused)


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return None


def _answers(answer: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return handle


def _proxy_to(port: int, seen: bytearray) -> Handler:
    """A CONNECT proxy that leads everywhere to one port of this machine."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, far_writer, seen))
                tasks.create_task(_pump(far_reader, writer, bytearray()))
        finally:
            far_writer.close()

    return handle


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            seen.extend(data)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()
