"""What the journal is good for: recordings that replay to the same calls, rebuilt and explained ones."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.cli.faults import ExitCode
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from agent.store.recording import MAGIC
from tests.agent_process import RUN, AgentProcess
from tests.integration.cli.test_running_agent import RULES, SECRET, Site, running, settings, simulator
from tests.pbx.waiting import wait_until

__all__ = ["simulator"]  # a fixture

# The store's own words, and what a replay cannot know.
BOOKKEEPING = {"created_at", "updated_at", "sync", "tasks", "interactions", "revision"}


@pytest.fixture
async def site(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Site]:
    async with running(AgentProcess(tmp_path, settings(simulator, rules=RULES))) as agent:
        yield Site(simulator, agent)


def told(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in BOOKKEEPING}


async def replayed(site: Site, file: Path) -> dict[str, Any]:
    """On another machine: without the site's settings."""

    def work() -> "subprocess.CompletedProcess[str]":
        environ = {name: value for name, value in os.environ.items() if name != "SENTIRIC_EDGE_CONFIG"}
        return subprocess.run(
            [*RUN, "replay", str(file), "--json"], capture_output=True, text=True, env=environ, timeout=60, check=False
        )

    done = await asyncio.to_thread(work)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


async def captured(site: Site) -> dict[str, dict[str, Any]]:
    return {call["call_sid"]: told(call) for call in await asyncio.to_thread(site.agent.calls)}


async def test_a_recording_replays_to_the_same_calls(site: Site, tmp_path: Path) -> None:
    await site.place_and_wait(15)
    file = tmp_path / "a.rec"

    done = await site.command("record", str(file), "--since", "1h")

    assert done.returncode == 0, done.stderr
    assert "personal data" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    again = await replayed(site, file)
    assert {call["call_sid"]: told(call) for call in again["calls"]} == await captured(site)
    content = file.read_bytes()
    assert content.startswith(MAGIC)
    assert SECRET.encode() not in content


async def test_what_comes_is_followed_until_ctrl_c(site: Site, tmp_path: Path) -> None:
    await site.place_and_wait(3)
    earlier = set(await captured(site))
    file = tmp_path / "a.rec"
    arguments = [*RUN, "record", str(file), "--config", str(site.agent.settings_file)]
    recording = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.PIPE)
    assert recording.stderr is not None
    assert b"Recording what the agent hears" in await recording.stderr.readline()

    await site.place_and_wait(8)
    recording.send_signal(signal.SIGINT)

    assert await recording.wait() == 0
    assert b"messages (" in await recording.stderr.read()
    again = await replayed(site, file)
    later = {sid: call for sid, call in (await captured(site)).items() if sid not in earlier}
    assert {call["call_sid"]: told(call) for call in again["calls"]} == later


async def test_a_recording_ends_by_itself_after_its_time(site: Site, tmp_path: Path) -> None:
    done = await site.command("record", str(tmp_path / "a.rec"), "--for", "1s")

    assert done.returncode == 0
    assert (await replayed(site, tmp_path / "a.rec"))["calls"] == []


async def test_a_file_that_is_there_is_replaced_only_by_force(site: Site, tmp_path: Path) -> None:
    await site.place_and_wait(1)
    file = tmp_path / "a.rec"
    file.write_text("mine")
    file.chmod(0o644)

    refused = await site.command("record", str(file), "--since", "1h")
    forced = await site.command("record", str(file), "--since", "1h", "--force")

    assert (refused.returncode, refused.stderr) == (
        ExitCode.ERROR, f"edge-agent: {file} is there already; --force replaces it\n",
    )  # fmt: skip
    assert (forced.returncode, file.stat().st_mode & 0o777) == (0, 0o600)
    assert file.read_bytes().startswith(MAGIC)


async def test_what_cannot_be_recorded_is_one_sentence_and_leaves_no_file(site: Site, tmp_path: Path) -> None:
    for arguments, what in (
        (["--until", "1h"], "--until needs --since"),
        (["--since", "1h", "--until", "2h"], "--since has to be before --until"),
        (["--since", "2h", "--until", "1h", "--for", "5s"], "give one of them"),
        (["--for", "soon"], "'soon' is no length of time"),
        (["--since", "1h", "--pbx", "other"], "no PBX is named 'other'; there is main"),
        (["--since", "5d", "--until", "4d"], "the journal holds nothing of that time"),
    ):
        done = await site.command("record", str(tmp_path / "a.rec"), *arguments)

        assert (done.returncode, what in done.stderr, done.stderr.count("\n")) == (ExitCode.ERROR, True, 1)
        assert not (tmp_path / "a.rec").exists()


async def test_without_an_agent_the_past_is_recorded_and_nothing_can_be_followed(site: Site, tmp_path: Path) -> None:
    await site.place_and_wait(3)
    calls = await captured(site)
    await asyncio.to_thread(site.agent.stop)
    try:
        past = await site.command("record", str(tmp_path / "a.rec"), "--since", "today")
        none = await site.command("record", str(tmp_path / "b.rec"))
        assert (past.returncode, none.returncode) == (0, ExitCode.NOT_RUNNING)
        assert {call["call_sid"] for call in (await replayed(site, tmp_path / "a.rec"))["calls"]} == set(calls)
    finally:
        await asyncio.to_thread(site.agent.start)


# Rebuilding

WRONG = 'trunks = ["SIP/none-*"]\ninbound_contexts = ["none"]\n'


def mistaken(site: Site) -> str:
    """Settings with a trunk rule that nothing fits."""
    return settings(site.simulator, rules=WRONG + RULES)


async def in_both_ways(site: Site, *arguments: str, agent: bool) -> Any:  # Any: JSON
    """By the running agent, or with none."""
    if agent:
        return await site.json(*arguments)
    await asyncio.to_thread(site.agent.stop)
    try:
        return await site.json(*arguments)
    finally:
        await asyncio.to_thread(site.agent.start)


@pytest.mark.parametrize("agent", [True, False], ids=["by the agent", "without an agent"])
async def test_calls_are_rebuilt_by_mended_rules_once(site: Site, agent: bool) -> None:
    await site.place_and_wait(12)
    right = await captured(site)
    site.agent.write_settings(mistaken(site))
    arguments = ("calls", "rebuild", "--since", "today")

    dry = await in_both_ways(site, *arguments, "--dry-run", agent=agent)
    assert await captured(site) == right
    wrong = await in_both_ways(site, *arguments, agent=agent)
    changed = {call["call_sid"] for call in wrong["calls"] if "direction" in call["fields"]}
    assert changed == {sid for sid, call in right.items() if call["direction"] != "internal"} != set()
    assert (dry["calls"], dry["dry_run"], wrong["dry_run"]) == (wrong["calls"], True, False)
    site.agent.write_settings(settings(site.simulator, rules=RULES))
    mended = await in_both_ways(site, *arguments, agent=agent)
    again = await in_both_ways(site, *arguments, agent=agent)

    assert await captured(site) == right
    assert (mended["changed"], again["changed"], again["unchanged"]) == (len(wrong["calls"]), 0, len(right))


async def test_a_rebuild_is_told_for_people(site: Site) -> None:
    await site.place_and_wait(6)
    site.agent.write_settings(mistaken(site))

    done = await site.command("calls", "rebuild", "--since", "today")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 calls looked at: ")
    assert "direction inbound → internal" in done.stdout


async def test_capture_goes_on_while_calls_are_rebuilt(site: Site) -> None:
    await site.place_and_wait(40)
    site.agent.write_settings(mistaken(site))
    rebuilding = asyncio.create_task(site.command("calls", "rebuild", "--since", "today"))

    await site.place_and_wait(20)

    assert (await rebuilding).returncode == 0
    assert len(await captured(site)) == 60


async def test_settings_that_are_wrong_rebuild_nothing(site: Site) -> None:
    await site.place_and_wait(2)
    site.agent.settings_file.write_text(f'{site.agent.settings_file.read_text()}\n[[tenancy.rules]]\ntenant = "a"\n')

    done = await site.command("calls", "rebuild", "--since", "today")

    assert (done.returncode, "the rule has no condition" in done.stderr) == (ExitCode.ERROR, True)


# Explaining


async def test_an_ended_call_is_explained(site: Site) -> None:
    await site.place_and_wait(10)
    inbound = next(call for call in (await captured(site)).values() if call["direction"] == "inbound")

    text = (await site.command("calls", "explain", inbound["call_sid"])).stdout
    explained = await site.json("calls", "explain", inbound["call_sid"], "--frames")

    assert explained["timeline"] == inbound["timeline"]
    entries = [entry for step in explained["steps"] for entry in step["timeline"] if entry not in step["taken_back"]]
    assert all(entry in entries for entry in inbound["timeline"])
    assert explained["steps"][0]["event"] == "Newchannel"
    assert explained["steps"][0]["frame"].startswith("Event: Newchannel")
    assert explained["rules"]["direction"].startswith("inbound: it began on ")
    assert explained["rules"]["tenant"].startswith(f"{inbound['tenant']}: rule ")
    assert explained["rules"]["outcome"].startswith(f"{inbound['status']} / {inbound['disposition']}: ")
    assert (explained["state"], explained["incomplete"], explained["differs"]) == ("ended", None, {})
    assert "LED TO" in text
    assert "differs" not in text


async def test_a_live_call_is_explained_so_far(site: Site) -> None:
    site.simulator.exchange.pace = 1000.0  # the calls stay where they are
    for plan in islice(plan_calls(3), 2):
        site.simulator.place(plan)

    def kept() -> list[str]:
        return [call["call_sid"] for call in site.agent.ask("/v1/calls")["calls"]]

    await asyncio.to_thread(wait_until, lambda: len(kept()) == 2, what="two live calls", seconds=20)
    explained: Any = None

    def is_explained() -> bool:
        nonlocal explained
        done = site.agent.command("calls", "explain", kept()[0], "--json")
        explained = json.loads(done.stdout) if done.returncode == 0 else None
        return explained is not None

    await asyncio.to_thread(wait_until, is_explained, what="the call in the journal", seconds=20)
    assert (explained["state"], explained["in_journal"]) == ("live", True)
    assert explained["rules"]["outcome"].startswith("in_progress: it still goes on")
    shown = await site.command("calls", "show", kept()[0])
    told_live = f"edge-agent: it still goes on: edge-agent calls explain {kept()[0]}, or edge-agent live\n"
    assert (shown.returncode, shown.stderr) == (ExitCode.ERROR, told_live)


async def test_what_would_be_derived_otherwise_now_is_told_with_what_to_do(site: Site) -> None:
    await site.place_and_wait(10)
    inbound = next(call for call in (await captured(site)).values() if call["direction"] == "inbound")
    site.agent.write_settings(mistaken(site))

    text = (await site.command("calls", "explain", inbound["call_sid"])).stdout

    assert "The stored record differs from this in direction" in text
    assert "calls rebuild --since" in text
    assert "internal: it began on" in text


async def test_a_call_that_the_journal_no_longer_holds_is_told_by_its_record(site: Site) -> None:
    import sqlite3
    from contextlib import closing

    await site.place_and_wait(3)
    await asyncio.to_thread(site.agent.stop)
    try:
        call = next(iter((await captured(site)).values()))
        with closing(sqlite3.connect(site.agent.database)) as connection:
            connection.execute("DELETE FROM journal_segment")
            connection.commit()
        done = await site.command("calls", "explain", call["call_sid"])
        explained = await site.json("calls", "explain", call["call_sid"])
    finally:
        await asyncio.to_thread(site.agent.start)
    assert done.returncode == 0
    assert "the journal holds nothing of this PBX; the record's own timeline tells:" in done.stdout
    assert (explained["in_journal"], explained["timeline"]) == (False, call["timeline"])


async def test_a_call_that_nobody_knows_is_one_sentence(site: Site) -> None:
    done = await site.command("calls", "explain", "nobody's")

    assert (done.returncode, done.stderr.count("\n")) == (ExitCode.ERROR, 1)
