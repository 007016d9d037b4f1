"""`edge-agent calls show --transcript`: what was said, as a person or a program reads it."""

import json
from pathlib import Path

from tests.agent_process import AgentProcess
from tests.integration.live.desks import CALL, site_at


async def test_a_transcript_is_shown_with_who_said_what_when_or_told_as_json(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, 'site = "istanbul-1"\n')
    async with site_at(agent.database.parent) as site:
        await site.begin(CALL)
        await site.say(CALL, "İyi günler\x1b[2J")
        await site.end(CALL)
    shown = agent.command("calls", "show", CALL.call_sid, "--transcript")
    assert shown.returncode == 0, shown.stderr
    heading, said = shown.stdout.splitlines()
    assert heading.split() == ["AFTER", "WHO", "SAID"]
    assert said.endswith("speech  İyi günler�[2J")
    told = json.loads(agent.command("calls", "show", CALL.call_sid, "--transcript", "--json").stdout)
    assert [entry["text"] for entry in told] == ["İyi günler\x1b[2J"]


async def test_a_call_without_a_transcript_says_so(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, 'site = "istanbul-1"\n')
    async with site_at(agent.database.parent) as site:
        await site.begin(CALL)
        await site.end(CALL)
    shown = agent.command("calls", "show", CALL.call_sid, "--transcript")
    assert shown.stdout == "Nothing that was said is noted for this call.\n"
