"""The trace context that a SIP call brings to a real Asterisk, in the dialplan's variable, becomes the call's."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.traces import traceparent
from agent.client import EdgeClient
from tests.agent_process import AgentProcess
from tests.pbx import town
from tests.pbx.asterisk import Asterisk, free_port, on_every_version
from tests.pbx.configuration import Options
from tests.pbx.sipp import Attempt, CallingSide
from tests.pbx.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

TENANT = town.ACME
TRACE = "0af7651916cd43dd8448eb211c80319c"
# The rig's callers send one header of their own.
PLAN = f"""
[{TENANT.inbound_context}]
exten => 7001,1,Set(TRACEPARENT=${{PJSIP_HEADER(read,X-Rig-Call)}})
 same => n,Dial(PJSIP/{TENANT.extension(town.ANSWERS_SOON)},20)
 same => n,Hangup()
"""


@pytest.fixture
def asterisk(rig: None, request: pytest.FixtureRequest) -> Iterator[Asterisk]:
    options = Options(channel_variables="TRACEPARENT", appended={"extensions.conf": PLAN})
    with Asterisk(version=request.param, options=options) as asterisk:
        yield asterisk


def settings(asterisk: Asterisk) -> str:
    return f"""
site = "ist-01"
api.socket_access = "write"
[[pbx]]
name = "main"
port = {asterisk.ami_port}
username = "{asterisk.user}"
secret = "{asterisk.secret}"
"""


def place(asterisk: Asterisk, header: str) -> None:
    port = free_port(socket.SOCK_DGRAM, TENANT.trunk_host)
    side = CallingSide(
        host=TENANT.trunk_host,
        port=port,
        asterisk_port=asterisk.ports.sip,
        directory=asterisk.sipp_directory,
        name="caller",
    )
    asterisk.on_close(side.stop)
    long_enough = timedelta(seconds=60)
    attempt = Attempt(header, "05321112233", b"", TENANT.trunk_host, "7001", "talk", long_enough)
    side.start([attempt], over=timedelta(seconds=1))


def answered_call(agent: AgentProcess) -> dict[str, Any]:  # Any: JSON
    """The live call as services see it, once both sides talk."""
    with EdgeClient(agent.directory / "run" / "services.sock") as edge:
        wait_until(
            lambda: [call.state for call in edge.live_calls()] == ["answered"], what="the call answered", seconds=20
        )
        return edge.live_calls()[0].raw


@on_every_version
def test_a_traceparent_in_the_dialplans_variable_is_the_calls_for_who_hears_it_and_for_who_comes_later(
    asterisk: Asterisk, tmp_path: Path
) -> None:
    with AgentProcess(tmp_path / "early", settings(asterisk)) as early:
        place(asterisk, f"00-{TRACE}-b7ad6b7169203331-01")
        heard = answered_call(early)
        with AgentProcess(tmp_path / "late", settings(asterisk)) as late:
            found = answered_call(late)
    for call in (heard, found):
        assert call["trace_id"] == TRACE
        assert call["traceparent"] == traceparent(heard["call_sid"], TRACE, sampled=True)
