"""The hub as a process: started, stopped, killed and reloaded as systemd and operators do it."""

import asyncio
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from sync import wire
from sync.central.connection import CentralAddress
from sync.errors import SyncError
from sync.hub import serve_cli
from sync.hub.cli import app
from sync.hub.limits import Limits
from sync.hub.options import Misuse
from sync.hub.serve import CannotServe, TlsFiles, parse_endpoint
from sync.records import Batch, Greeting, Verdict
from tests.fakes_sync import a_record, body_of
from tests.hub_process import EDGE_HUB, HubProcess, hub_process
from tests.hub_server import make_credential, running_hub
from tests.postgres import PostgresDatabase

GREETING = wire.encode_greeting(Greeting("istanbul", "1.0", "holder", "pbx-1", None, 60.0))

_COMMIT = re.compile(rb"COMMIT;?\0")


class Door:
    """A way to PostgreSQL that can hear a COMMIT's answer and keep it."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._server = database.server
        self.on_commit: Callable[[], Awaitable[None]] | None = None
        self._committing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(self._server.host, self._server.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(reader, inner_writer))
                both.create_task(self._down(inner_reader, writer))
        except* ConnectionError:
            pass
        finally:
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self._committing = self._committing or (self.on_commit is not None and bool(_COMMIT.search(data)))
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._committing and self.on_commit is not None:
                act, self.on_commit, self._committing = self.on_commit, None, False
                await act()
            writer.write(data)
            await writer.drain()
        writer.close()


def client_of(hub: HubProcess, credential: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{hub.port}",
        headers={"Authorization": f"Bearer {credential}"},
        trust_env=False,
        timeout=60,
    )


async def greet(client: httpx.AsyncClient) -> str:
    answer = await client.post("/v1/handshake", content=GREETING)
    return wire.decode_welcome(answer.content).lease


def a_body(lease: str) -> bytes:
    return body_of(
        Batch("istanbul", (), 2, "holder", lease), [wire.encode_record(a_record(number)) for number in range(50)]
    )


@pytest.fixture
async def credential(central_database: PostgresDatabase) -> str:
    await central_database.add_site("istanbul", "acme")
    return await make_credential(central_database, "istanbul")


async def test_a_hub_killed_between_commit_and_answer_has_stored_the_batch_once(
    central_database: PostgresDatabase, hub_address: CentralAddress, credential: str
) -> None:
    door = Door(central_database)
    listener = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    through_door = hub_address.dsn.replace(f":{central_database.server.port}/", f":{port}/")
    async with listener, hub_process(through_door) as first, client_of(first, credential) as client:
        lease = await greet(client)
        door.on_commit = first.kill
        with pytest.raises(httpx.HTTPError):
            await client.post("/v1/batches", content=a_body(lease))
    assert [row["count"] for row in await central_database.fetch("SELECT count(*) FROM call")] == [50]

    async with hub_process(hub_address.dsn) as second, client_of(second, credential) as client:
        again = await client.post("/v1/batches", content=a_body(lease))

    assert {verdict.verdict for verdict in wire.decode_receipt(again.content).verdicts} == {Verdict.SUPERSEDED}
    assert [tuple(row) for row in await central_database.fetch("SELECT count(*), max(revision) FROM call")] == [(50, 1)]


async def test_what_is_under_way_is_finished_when_the_hub_stops(
    central_database: PostgresDatabase, hub_address: CentralAddress, credential: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        async with hub_process(hub_address.dsn, environ=environ) as hub, client_of(hub, credential) as client:
            assert b"READY=1" in await asyncio.to_thread(systemd.recv, 4096)
            lease = await greet(client)
            async with central_database.connection() as other, other.transaction():
                await other.execute("SELECT 1 FROM site FOR UPDATE")
                sending = asyncio.create_task(client.post("/v1/batches", content=a_body(lease)))
                await _until_somebody_waits(central_database)
                hub.signal(signal.SIGTERM)
                await hub.wait_for_line("the hub stops")
                await _until_nobody_listens(hub.port)
            assert (await sending).status_code == 200
            assert await hub.wait() == 0
            assert b"STOPPING=1" in await asyncio.to_thread(systemd.recv, 4096)


async def test_what_does_not_end_in_time_is_ended_when_the_hub_stops(
    central_database: PostgresDatabase, hub_address: CentralAddress, credential: str
) -> None:
    async with hub_process(hub_address.dsn, "--stop-seconds", "1") as hub, client_of(hub, credential) as client:
        lease = await greet(client)
        async with central_database.connection() as other, other.transaction():
            await other.execute("SELECT 1 FROM site FOR UPDATE")
            sending = asyncio.create_task(client.post("/v1/batches", content=a_body(lease)))
            await _until_somebody_waits(central_database)
            hub.signal(signal.SIGTERM)
            assert await hub.wait() == 0
            with pytest.raises(httpx.HTTPError):
                (await sending).raise_for_status()
    assert await central_database.fetch("SELECT 1 FROM call") == []


async def test_a_login_that_row_level_security_does_not_bind_is_refused(central_database: PostgresDatabase) -> None:
    environ = {"SENTIRIC_HUB_DSN": central_database.dsn}
    process = await asyncio.create_subprocess_exec(
        *(EDGE_HUB, "serve", "--listen", "127.0.0.1:0"), env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()

    assert process.returncode == 2
    assert "superuser" in told.decode()
    assert "CREATE ROLE" in told.decode()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(
    central_database: PostgresDatabase, tmp_path: Path
) -> None:
    files = TlsFiles(tmp_path / "hub.pem", tmp_path / "hub.key")
    _make_certificate(files, "old")
    async with running_hub(central_database, tls=files, limits=Limits(stop_seconds=1), site="") as hub:
        assert await _name_shown(hub.port, files.certificate) == "old"

        _make_certificate(files, "new")
        hub.serving.reload()
        assert await _name_shown(hub.port, files.certificate) == "new"

        trusted = tmp_path / "trusted.pem"
        shutil.copy(files.certificate, trusted)
        files.certificate.write_text("no certificate at all")
        hub.serving.reload()
        assert await _name_shown(hub.port, trusted) == "new"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
async def test_connections_that_never_begin_with_tls_cost_little_and_are_bounded(
    hub_address: CentralAddress, tmp_path: Path
) -> None:
    files = TlsFiles(tmp_path / "hub.pem", tmp_path / "hub.key")
    _make_certificate(files, "hub")
    options = ("--tls-cert", str(files.certificate), "--tls-key", str(files.key), "--max-clients", "300")
    async with hub_process(hub_address.dsn, *options) as hub:
        before = hub.peak_bytes()
        held = [await asyncio.open_connection("127.0.0.1", hub.port) for _ in range(400)]
        closed = {asyncio.create_task(reader.read()) for reader, _ in held}
        async with asyncio.timeout(20):
            while sum(task.done() for task in closed) < 400 - 300 - 64:
                await asyncio.wait([task for task in closed if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        grown = hub.peak_bytes() - before
        for _, writer in held:
            writer.transport.abort()
        for task in closed:
            task.cancel()
        await asyncio.gather(*closed, return_exceptions=True)
        trusting = ssl.create_default_context(cafile=files.certificate)
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            assert (await client.get(f"https://127.0.0.1:{hub.port}/health")).status_code == 200

    assert grown < 300 * 100 * 1024, f"grown by {grown >> 20} MiB"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--listen"),
        (["--listen", ":8443"], "--tls-cert"),
        (["--listen", ":8443", "--tls-cert", "/nowhere/a"], "belong together"),
        (["--listen", "hub"], "SENTIRIC_HUB_DSN"),
        (["--listen", "127.0.0.1:0", "--batch-mib", "32"], "--in-flight-mib"),
        (["--listen", "127.0.0.1:0", "--metrics-from", "x"], "--metrics-from"),
    ],
)
def test_a_command_line_that_cannot_work_is_told_so(options: list[str], told: str) -> None:
    dsn = [] if told == "SENTIRIC_HUB_DSN" else ["--dsn", "postgresql://nobody@127.0.0.1:1/x"]

    result = CliRunner().invoke(app, ["serve", *options, *dsn], env={"SENTIRIC_HUB_DSN": None})

    assert isinstance(result.exception, SyncError)
    assert told in str(result.exception)


def test_without_its_packages_the_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_cli, "_NEEDED", ("fastapi", "no_such_package"))

    with pytest.raises(Misuse, match=r"no_such_package.*pip install 'sentiric-edge-agent\[hub\]'"):
        serve_cli.serve(listen=[":8443"])


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80),
        (":8443", "", 8443),
        ("[::1]:80", "::1", 80),
        ("[::1]", "::1", 8443),
        ("hub.example", "hub.example", 8443),
    ],
)
def test_where_to_listen_is_written_as_usual(text: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(text)

    assert (endpoint.host, endpoint.port) == (host, port)


@pytest.mark.parametrize("text", ["::1:80", "127.0.0.1:x", "127.0.0.1:70000", "a:b:c"])
def test_where_nobody_can_listen_is_told(text: str) -> None:
    with pytest.raises(CannotServe):
        parse_endpoint(text)


async def _until_nobody_listens(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await writer.wait_closed()


async def _until_somebody_waits(database: PostgresDatabase) -> None:
    """The database itself is asked, as nobody else knows."""
    async with asyncio.timeout(20), database.connection() as connection:
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await connection.execute("SELECT pg_sleep(0.02)")


def _make_certificate(files: TlsFiles, name: str) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(files.key), "-out", str(files.certificate)),
        ],
        check=True,
        capture_output=True,
    )


async def _name_shown(port: int, ca: Path) -> str:
    """Whom a new connection finds there."""
    context = ssl.create_default_context(cafile=ca)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return str(dict(pair[0] for pair in certificate["subject"])["commonName"])


async def test_dev_gives_a_hub_a_site_can_enrol_at_and_keeps_its_data() -> None:
    # Not in pytest's own directory: PostgreSQL's unprivileged user must reach it.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        kept = Path(directory, "kept")
        names = []
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *(EDGE_HUB, "dev", "--listen", "127.0.0.1:0", "--directory", str(kept)),
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            told = [(await process.stdout.readline()).decode() for _ in range(6)]
            code = told[4].split()[-1]
            url = told[0].split()[-1]
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.post(f"{url}/v1/enrol", json={"code": code, "host": "pbx-1"})
            names.append(wire.decode_enrolled(answer.content).site)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0

    assert names == ["ist-01", "ist-01"]
