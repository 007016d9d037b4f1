"""The rig itself: does Asterisk's account of the calls say what the callers meant?"""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.pbx import town
from tests.pbx.ami import Ami
from tests.pbx.asterisk import INSTANCES, Asterisk, on_every_version
from tests.pbx.leftovers import is_alive
from tests.pbx.mix import SCENARIOS, Mix, Plan, place
from tests.pbx.record import Recorder
from tests.pbx.truth import TrueCall, disagreements, true_calls
from tests.pbx.waiting import wait_until


def account(asterisk: Asterisk) -> list[TrueCall]:
    return true_calls(asterisk.cel_path, asterisk.cdr_path)


def test_the_same_seed_makes_the_same_calls() -> None:
    assert Plan(7).mixed(50) == Plan(7).mixed(50)
    assert Plan(7).mixed(50) != Plan(8).mixed(50)


def test_a_mix_holds_every_kind_of_call_of_both_tenants() -> None:
    planned = Plan(7).mixed(300)

    assert {plan.intention.scenario for plan in planned} == {scenario.name for scenario in SCENARIOS}
    assert {plan.intention.tenant for plan in planned} == {"acme", "globex"}


@on_every_version
def test_asterisk_runs_on_its_own_ports_and_answers_both_users(asterisk: Asterisk) -> None:
    with Ami.login(asterisk.host, asterisk.ami_port, asterisk.user, asterisk.secret, md5=True) as ami:
        assert ami.ask("Ping")["Ping"] == "Pong"
        assert ami.ask("CoreShowChannels")["Response"] == "Success"
        assert ami.ask("Command", Command="core stop now")["Response"] == "Error"
    assert f"Asterisk {asterisk.version}." in asterisk.cli("core show version")


@on_every_version
def test_mixed_calls_are_in_asterisks_account_what_they_were_meant_to_be(asterisk: Asterisk) -> None:
    intentions = Mix(seed=7).place(asterisk, calls=120, rate=10.0)

    calls = account(asterisk)
    assert disagreements(calls, intentions) == []
    talks = {intention.call: intention.talk for intention in intentions}
    for call in calls:
        assert call.ended
        assert call.end_time is not None
        assert call.start_time < call.end_time
        if call.disposition == "answered":
            assert call.talk_seconds == pytest.approx(call.cdr_talk_seconds, abs=0.1)
            meant = talks[call.intention or ""]
            # Menus and queues take up to 1.5 s of what the caller meant for the talk, never more.
            assert meant is None or call.talk_seconds == pytest.approx(meant.total_seconds(), abs=1.6)


def test_calls_can_be_placed_while_the_test_does_other_things(asterisk: Asterisk) -> None:
    placing = Mix(seed=9).start(asterisk, calls=10, rate=10.0)
    wait_until(lambda: asterisk.active_channels() > 0, what="calls going on", seconds=10)

    assert not placing.finished
    assert disagreements(account(asterisk), placing.intentions) != []
    placing.wait(seconds=60)
    assert disagreements(account(asterisk), placing.intentions) == []


@on_every_version
def test_a_restart_hangs_up_every_call_and_the_next_ones_are_whole(asterisk: Asterisk) -> None:
    plan = Plan(1)
    talking = plan.one("inbound_answered", talk=timedelta(seconds=30))
    ringing = plan.one("inbound_no_answer", tenant=town.GLOBEX)
    with Recorder(asterisk) as recorder:
        cut = place(asterisk, [talking, ringing], over=timedelta(seconds=0.1))
        recorder.wait_for(b"Event: BridgeEnter", times=2)
        asterisk.restart_now()
        recorder.wait_until_closed()
    cut.wait(seconds=10, disturbed=True)
    whole = plan.one("inbound_answered", talk=timedelta(seconds=1))
    after = place(asterisk, [whole], over=timedelta(seconds=0.1)).wait(seconds=60)

    by_name = {call.intention: call for call in account(asterisk)}
    assert b"Shutdown: Cleanly" in recorder.received
    assert by_name[talking.intention.call].disposition == "answered"
    assert by_name[talking.intention.call].ended
    assert by_name[ringing.intention.call].disposition == "failed"
    assert by_name[after[0].call].disposition == "answered"


def test_a_killed_asterisk_leaves_calls_without_an_end_and_starts_again(asterisk: Asterisk) -> None:
    plan = Plan(2)
    with Recorder(asterisk) as recorder:
        cut = place(asterisk, [plan.one("inbound_answered", talk=timedelta(seconds=30))], over=timedelta(seconds=0.1))
        recorder.wait_for(b"Event: BridgeEnter", times=2)
        asterisk.kill()
        recorder.wait_until_closed()
    cut.stop()
    asterisk.start()
    whole = plan.one("inbound_answered", talk=timedelta(seconds=1))
    place(asterisk, [whole], over=timedelta(seconds=0.1)).wait(seconds=60)

    first, second = account(asterisk)
    assert not first.ended
    assert first.status == "in_progress"
    assert (second.ended, second.disposition) == (True, "answered")


@on_every_version
def test_a_phone_that_asterisk_calls_first_is_the_caller_of_what_it_then_dials(asterisk: Asterisk) -> None:
    with Recorder(asterisk) as recorder:
        asterisk.originate(channel="PJSIP/101", context=town.ACME.internal_context, exten="05321234503")
        recorder.wait_for(b"LINKEDID_END")
    asterisk.wait_until_quiet()

    (call,) = account(asterisk)
    assert (call.caller, call.callee, call.direction) == ("101", "05321234503", "outbound")
    assert (call.disposition, call.answered_by) == ("answered", "05321234503")


def test_two_asterisks_do_not_disturb_each_other(asterisk: Asterisk) -> None:
    with Asterisk() as other:
        for one in (asterisk, other):
            intended = place(
                one, [Plan(3).one("internal_answered", talk=timedelta(seconds=1))], over=timedelta(seconds=0.1)
            ).wait(seconds=60)
            assert disagreements(account(one), intended) == []


_ABANDONS_AN_ASTERISK = """
import sys
from tests.pbx.asterisk import Asterisk
asterisk = Asterisk().__enter__()
print(asterisk.home, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_test_run_left_behind_is_swept_away(rig: None) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _ABANDONS_AN_ASTERISK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdin is not None
    home = Path(run.stdout.readline().strip())
    children = (home / "children").read_text().splitlines()
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdin.close()
    run.stdout.close()
    assert len(children) == 4
    assert all(is_alive(child) for child in children)

    Asterisk().close()

    wait_until(lambda: not any(is_alive(child) for child in children), what="left-over processes gone", seconds=10)
    assert not home.exists()
    assert home.parent.name == INSTANCES
