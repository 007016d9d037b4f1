"""What comes to a hub that stands in the open: bombs, floods and dawdlers, refused in bounded memory and time."""

import asyncio
import gzip
import io
import json
import socket

import httpx
import pytest
import zstandard

from sync import wire
from sync.central.connection import CentralAddress
from sync.hub.limits import MEBIBYTE, Limits
from sync.records import Batch
from tests.fakes_sync import a_record, zstd_of
from tests.hub_process import HubProcess, hub_process
from tests.hub_server import RunningHub, make_credential, running_hub
from tests.postgres import PostgresDatabase

_GROWTH = 160 * MEBIBYTE  # for one request at a time; a batch of 16 MiB that is stored takes about half of it
_GIB = 1024 * MEBIBYTE


def a_zstd_bomb(size: int) -> bytes:
    packed = io.BytesIO()
    with zstandard.ZstdCompressor(level=1).stream_writer(packed, closefd=False) as writer:
        for _ in range(size // MEBIBYTE):
            writer.write(bytes(MEBIBYTE))
    return packed.getvalue()


def a_gzip_bomb(size: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as writer:
        for _ in range(size // MEBIBYTE):
            writer.write(bytes(MEBIBYTE))
    return packed.getvalue()


def a_bomb_in_a_bomb() -> bytes:
    return zstd_of(a_zstd_bomb(_GIB))


def a_wide_window() -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    packed = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(packed, closefd=False) as writer:
        writer.write(b'{"site": "istanbul"}' * 100)
    return packed.getvalue()


async def flood(port: int, head: str, *, chunked: bool) -> bytes:
    """Send zeros until the hub answers, one GiB at most; return what it says, nothing if it cuts the line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    piece = bytes(MEBIBYTE)
    framed = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    answer = asyncio.create_task(reader.read(65_536))
    sent = 0
    try:
        while not answer.done() and sent < _GIB:
            writer.write(framed)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass  # the hub has had enough
    try:
        return await answer
    except ConnectionError:
        return b""
    finally:
        writer.close()


def client_of(hub: HubProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{hub.port}", trust_env=False, timeout=60)


@pytest.fixture
async def site(central_database: PostgresDatabase) -> str:
    await central_database.add_site("istanbul", "acme")
    return await make_credential(central_database, "istanbul")


async def test_nothing_that_is_sent_makes_the_hub_hold_more_than_it_may(
    central_database: PostgresDatabase, hub_address: CentralAddress, site: str
) -> None:
    authorized = {"Authorization": f"Bearer {site}"}
    head = f"POST /v1/batches HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {site}\r\n"
    async with hub_process(hub_address.dsn) as hub, client_of(hub) as client:

        async def send(body: bytes, **headers: str) -> int:
            return (await client.post("/v1/batches", content=body, headers=authorized | headers)).status_code

        assert await send(b"{}") == 400
        before = hub.peak_bytes()
        assert await send(a_zstd_bomb(_GIB), **{"Content-Encoding": "zstd"}) == 413
        assert await send(a_gzip_bomb(256 * MEBIBYTE), **{"Content-Encoding": "gzip"}) == 413
        assert await send(a_bomb_in_a_bomb(), **{"Content-Encoding": "zstd"}) == 400
        assert await send(a_wide_window(), **{"Content-Encoding": "zstd"}) == 415
        assert await send(b"[" * 8 * MEBIBYTE) == 400
        assert await send(b'{"records":[' + b"[]," * 4 * MEBIBYTE + b"[]]}") == 400
        many = b'{"site":"istanbul","high_water":1,"records":[' + b"0," * 4 * MEBIBYTE + b"0]}"
        assert await send(many) == 413
        told = await flood(hub.port, f"{head}Transfer-Encoding: chunked\r\n\r\n", chunked=True)
        assert told.startswith(b"HTTP/1.1 413")
        told = await flood(hub.port, f"{head}Content-Length: {_GIB}\r\n\r\n", chunked=False)
        assert told.startswith(b"HTTP/1.1 413")
        headers = "".join(f"X-{number}: {number}\r\n" for number in range(100_000))
        told = await flood(hub.port, f"{head}{headers}", chunked=False)
        # Such a line is cut at once, so the answer may be lost on it.
        assert told == b"" or told.startswith(b"HTTP/1.1 400")
        grown = hub.peak_bytes() - before
        assert (await client.get("/ready")).status_code == 200

    assert grown < _GROWTH, f"grown by {grown // MEBIBYTE} MiB"
    assert await central_database.fetch("SELECT 1 FROM call") == []


async def test_many_at_once_are_held_to_the_bytes_there_are(
    central_database: PostgresDatabase, hub_address: CentralAddress
) -> None:
    sites = [f"site-{number}" for number in range(12)]
    for name in sites:
        await central_database.add_site(name, "acme")
    credentials = [await make_credential(central_database, name) for name in sites]
    body = b'{"site":"x","records":[' + b"7," * 7 * MEBIBYTE + b"7]}"
    async with hub_process(hub_address.dsn) as hub, client_of(hub) as client:
        before = hub.peak_bytes()
        packed = zstd_of(body)

        async def send(credential: str) -> int:
            headers = {"Authorization": f"Bearer {credential}", "Content-Encoding": "zstd"}
            return (await client.post("/v1/batches", content=packed, headers=headers)).status_code

        answers = await asyncio.gather(*(send(credential) for credential in credentials * 2))
        grown = hub.peak_bytes() - before

    assert set(answers) <= {400, 413, 503}
    assert grown < 4 * Limits().bytes_in_flight, f"grown by {grown // MEBIBYTE} MiB"


async def test_who_sends_headers_byte_by_byte_is_cut(central_database: PostgresDatabase) -> None:
    async with running_hub(central_database, limits=Limits(header_seconds=0.3, stop_seconds=2)) as hub:
        async with asyncio.timeout(10):
            for opening in (b"", b"G", b"GET /health HTTP/1.1\r\nX: "):
                reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
                writer.write(opening)
                assert await _dribble_until_cut(reader, writer) == b""
        assert (await hub.client.get("/health")).status_code == 200


async def test_who_sends_a_body_byte_by_byte_is_told_that_it_took_too_long(
    central_database: PostgresDatabase,
) -> None:
    async with running_hub(central_database, limits=Limits(body_seconds=0.3, stop_seconds=2)) as hub:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
            writer.write(f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.credential}\r\n".encode())
            writer.write(b"Content-Length: 1000\r\n\r\n")
            told = await reader.read(4096)
            writer.close()

    assert told.startswith(b"HTTP/1.1 408")
    assert b'"code":"timeout"' in told


async def test_who_asks_and_does_not_read_the_answers_is_cut(central_database: PostgresDatabase) -> None:
    async with running_hub(central_database, limits=Limits(body_seconds=0.3, idle_seconds=1, stop_seconds=2)) as hub:
        loop = asyncio.get_running_loop()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", hub.port))
            await loop.sock_sendall(deaf, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
            async with asyncio.timeout(20):
                while (await hub.client.get("/health")).is_success:
                    try:
                        await loop.sock_sendall(deaf, b"GET")
                    except ConnectionError:
                        break
        assert (await hub.client.get("/health")).status_code == 200


async def test_what_takes_too_long_is_ended(central_database: PostgresDatabase) -> None:
    limits = Limits(answer_seconds=0.5, stop_seconds=2)
    async with running_hub(central_database, limits=limits) as hub, hub.database.connection() as other:
        welcome = await hub.greet()
        # The site's row is held, so the batch cannot be stored in time.
        await other.execute("BEGIN; SELECT 1 FROM site FOR UPDATE")
        answer = await hub.send(Batch("istanbul", [a_record(1)], 1, "holder", welcome.lease))

    assert (answer.status_code, answer.json()["code"]) == (503, "busy")


async def test_more_connections_than_the_hub_takes_are_told_so(central_database: PostgresDatabase) -> None:
    async with running_hub(central_database, limits=Limits(connections=5, stop_seconds=2)) as hub:
        held = [await asyncio.open_connection("127.0.0.1", hub.port) for _ in range(5)]
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        told = await reader.read()
        writer.close()
        for _, one in held:
            one.close()
            await one.wait_closed()

        assert told.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 5" in told
        assert json.loads(told.partition(b"\r\n\r\n")[2])["code"] == "busy"
        assert (await hub.client.get("/health")).status_code == 200


async def test_two_requests_that_disagree_on_their_length_are_one_refusal(hub: RunningHub) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")
    told = await reader.read()
    writer.close()

    assert told.startswith(b"HTTP/1.1 400")


async def test_sql_in_every_text_is_text(hub: RunningHub) -> None:
    evil = "'); DROP TABLE call; --"
    record = a_record(1, call_sid=f"istanbul:{evil}", caller_name=evil, queue=evil, pbx=evil[:60], source=evil)
    welcome = await hub.greet()

    answer = await hub.send(Batch("istanbul", [record, a_record(2, tenant=evil)], 1, "holder", welcome.lease))

    assert [verdict.verdict for verdict in wire.decode_receipt(answer.content).verdicts] == ["accepted", "rejected"]
    (row,) = await hub.database.fetch("SELECT call_sid, caller_name, queue FROM call")
    assert tuple(row) == (f"istanbul:{evil}", evil, evil)


async def _dribble_until_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    end = asyncio.create_task(reader.read())
    try:
        while not end.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait({end}, timeout=0.05)
        return await end
    except ConnectionError:
        return b""
    finally:
        end.cancel()
        writer.close()
