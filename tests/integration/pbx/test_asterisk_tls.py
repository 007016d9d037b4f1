"""A line over TLS is only made to the PBX that was meant."""

from pathlib import Path

import pytest

from agent.pbx.feed import LineState
from tests.integration.pbx.authority import Authority
from tests.integration.pbx.loopback import Ear, Pbx, connected, settings, until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def reason_of(port: int, **changes: object) -> str:
    """Why the line cannot be made."""
    async with connected(settings(port, tls=True, **changes), Ear()) as connector:
        await until(lambda: connector.status.state is LineState.LOST)
        return connector.status.reason or ""


async def test_a_trusted_pbx_is_heard(authority: Authority) -> None:
    async with Pbx(authority.server("127.0.0.1")) as pbx:
        told = settings(pbx.port, tls=True, tls_ca_file=authority.ca_file)
        async with connected(told, Ear()) as connector:
            line = await pbx.called()
            await line.log_in()
            await line.list_channels()

            await until(lambda: connector.status.state is LineState.CONNECTED)


async def test_a_pbx_behind_another_name_is_heard_by_that_name(authority: Authority) -> None:
    async with Pbx(authority.server("pbx.example")) as pbx:
        told = settings(pbx.port, tls=True, tls_ca_file=authority.ca_file, tls_server_name="pbx.example")
        async with connected(told, Ear()) as connector:
            line = await pbx.called()
            await line.log_in()

            await until(lambda: connector.status.state is LineState.CONNECTED)


async def test_an_untrusted_pbx_is_not_talked_to_and_the_reason_says_what_to_set(authority: Authority) -> None:
    async with Pbx(authority.server("127.0.0.1")) as pbx:
        reason = await reason_of(pbx.port)

    assert "is not trusted" in reason
    assert "tls_ca_file" in reason


async def test_a_pbx_of_another_name_is_not_talked_to_and_the_reason_says_what_to_set(authority: Authority) -> None:
    async with Pbx(authority.server("pbx.example")) as pbx:
        reason = await reason_of(pbx.port, tls_ca_file=authority.ca_file)

    assert "127.0.0.1" in reason
    assert "tls_server_name" in reason


async def test_a_pbx_without_tls_is_told_as_such() -> None:
    async with Pbx() as pbx, connected(settings(pbx.port, tls=True), Ear()) as connector:
        (await pbx.called()).greet()

        await until(lambda: connector.status.state is LineState.LOST)

        reason = connector.status.reason
    assert reason == f"no TLS with {connector.status.address} (wrong version number); check port and tls"


async def test_a_file_of_certificates_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    async with Pbx() as pbx:
        missing = await reason_of(pbx.port, tls_ca_file=tmp_path / "missing.pem")
        wrong = await reason_of(pbx.port, tls_ca_file=nonsense)

    assert missing == f"tls_ca_file {tmp_path / 'missing.pem'} cannot be read: No such file or directory"
    assert wrong.startswith(f"tls_ca_file {nonsense} cannot be read: ")
