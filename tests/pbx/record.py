"""Records what a real Asterisk says over AMI, each kind of call alone: python -m tests.pbx.record [DIR] [NAME …]

Beside each NAME.ami (the bytes from the banner to the end, as the product's user receives them) stand Asterisk's own
CEL rows and the truth made of them. Needs what the rig needs; DIR is tests/wire if not given. With `--asterisk 16`
that version speaks, and DIR is tests/wire/asterisk-16.
"""

import argparse
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.pbx import town
from tests.pbx.ami import Ami
from tests.pbx.asterisk import VERSIONS, Asterisk
from tests.pbx.configuration import CEL_COLUMNS, DRIVER_SECRET, DRIVER_USER
from tests.pbx.mix import SCENARIOS, Plan, Planned, place
from tests.pbx.truth import true_calls
from tests.pbx.waiting import wait_until

WIRE = Path(__file__).parents[1] / "wire"


class Recorder(AbstractContextManager["Recorder"]):
    """Logs in as the product would and keeps every byte it is sent, reading all the time."""

    def __init__(self, asterisk: Asterisk) -> None:
        self._connection = socket.create_connection((asterisk.host, asterisk.ami_port), timeout=60)
        self._user, self._secret = asterisk.user, asterisk.secret
        self._received = bytearray()
        self._thread = threading.Thread(target=self._read, name="ami recorder")

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    def __enter__(self) -> Self:
        self._thread.start()
        login = f"Action: Login\r\nActionID: login-1\r\nUsername: {self._user}\r\nSecret: {self._secret}\r\n\r\n"
        self._connection.sendall(login.encode())
        self.wait_for(b"Event: FullyBooted")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # Asterisk was first
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def send(self, *lines: str) -> None:
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode())

    def wait_for(self, text: bytes, *, times: int = 1, seconds: float = 30) -> None:
        wait_until(lambda: self._received.count(text) >= times, what=f"{times} times {text!r}", seconds=seconds)

    def wait_until_closed(self, *, seconds: float = 30) -> None:
        wait_until(lambda: not self._thread.is_alive(), what="AMI connection closed", seconds=seconds)

    def _read(self) -> None:
        while True:
            try:
                received = self._connection.recv(65536)
            except OSError:
                return
            if not received:
                return
            self._received += received


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pbx.record")
    parser.add_argument("--asterisk", type=int, choices=VERSIONS, default=VERSIONS[0], metavar="VERSION")
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args(arguments)
    wanted = set(asked.names)
    directory: Path = asked.directory or (
        WIRE if asked.asterisk == VERSIONS[0] else WIRE / f"asterisk-{asked.asterisk}"
    )
    directory.mkdir(parents=True, exist_ok=True)
    with Asterisk(version=asked.asterisk) as asterisk:
        for name, planned in _single_calls().items():
            if not wanted or name in wanted:
                _record_calls(asterisk, directory / name, [planned])
        for name, session in _SESSIONS.items():
            if not wanted or name in wanted:
                asterisk.truncate_account()
                (directory / f"{name}.ami").write_bytes(session(asterisk))
                asterisk.wait_until_quiet()
                if asterisk.cel_path.stat().st_size:
                    _write_account(asterisk, directory / name, [])
                print(name)
    return 0


def _single_calls() -> dict[str, Planned]:
    """Every scenario once, tenants in turn, and the callers whose names are difficult."""
    plan = Plan(seed=22)
    short = timedelta(seconds=2)
    calls = {
        scenario.name: plan.one(scenario, tenant=town.TENANTS[index % 2], talk=short)
        for index, scenario in enumerate(SCENARIOS)
    }
    for caller in ("latin5", "quotes", "plus", "anonymous", "nameless", "turkish_capitals"):
        calls[f"caller_{caller}"] = plan.one("inbound_answered", caller=caller, talk=short)
    return calls


def _record_calls(asterisk: Asterisk, path: Path, planned: list[Planned]) -> None:
    asterisk.truncate_account()
    with Recorder(asterisk) as recorder:
        place(asterisk, planned, over=timedelta(seconds=0.1)).wait(seconds=60)
        recorder.wait_for(b"Event: CEL\r\n", times=_lines(asterisk.cel_path))
        recorder.wait_for(b"Event: Cdr\r\n", times=_lines(asterisk.cdr_path))
    path.with_suffix(".ami").write_bytes(recorder.received)
    _write_account(asterisk, path, planned)
    print(path.name)


def _write_account(asterisk: Asterisk, path: Path, planned: list[Planned]) -> None:
    header = ",".join(CEL_COLUMNS).encode() + b"\n"
    path.with_suffix(".cel.csv").write_bytes(header + asterisk.cel_path.read_bytes())
    calls = true_calls(asterisk.cel_path, asterisk.cdr_path)
    scenarios = {plan.intention.call: plan.intention.scenario for plan in planned}
    truth = [call.to_json() | {"scenario": scenarios.get(call.intention or "")} for call in calls]
    path.with_suffix(".json").write_text(json.dumps(truth, ensure_ascii=False, indent=2) + "\n")


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _login_plain(asterisk: Asterisk) -> bytes:
    with Recorder(asterisk) as recorder:
        recorder.send("Action: Ping", "ActionID: ping-1")
        recorder.wait_for(b"ActionID: ping-1")
        recorder.send("Action: Logoff", "ActionID: logoff-1")
        recorder.wait_until_closed()
    return recorder.received


def _login_md5(asterisk: Asterisk) -> bytes:
    with Ami.login(asterisk.host, asterisk.ami_port, asterisk.user, asterisk.secret, md5=True) as ami:
        ami.ask("Ping")
        ami.ask("Logoff")
        return ami.raw


def _login_refused(asterisk: Asterisk) -> bytes:
    with Ami.connect(asterisk.host, asterisk.ami_port) as ami:
        assert ami.ask("Login", Username=asterisk.user, Secret="wrong")["Response"] == "Error"
        return ami.raw


def _live_calls(asterisk: Asterisk) -> bytes:
    """Logs in while calls are going on and asks for the state of everything."""
    plan = Plan(seed=23)
    talk = timedelta(seconds=5)
    planned = [
        plan.one("inbound_answered", talk=talk),
        plan.one("inbound_no_answer", tenant=town.GLOBEX),
        plan.one("queue_answered", talk=talk),
        plan.one("queue_gives_up", tenant=town.GLOBEX),
        plan.one("ivr_abandoned", talk=talk),
        plan.one("outbound_answered", tenant=town.GLOBEX, talk=talk),
        plan.one("internal_answered", talk=talk),
    ]
    placing = place(asterisk, planned, over=timedelta(seconds=0.1))
    wait_until(lambda: asterisk.cli("core show channels").count(" Up ") >= 8, what="calls talking", seconds=20)
    with Recorder(asterisk) as recorder:
        for action in ("CoreStatus", "CoreShowChannels", "Status", "QueueStatus", "QueueSummary", "Ping"):
            recorder.send(f"Action: {action}", f"ActionID: {action}-1")
        recorder.wait_for(b"ActionID: Ping-1")
        placing.wait(seconds=60)
        wait_until(lambda: _all_ended(recorder), what="every call's end on the wire", seconds=20)
    return recorder.received


def _all_ended(recorder: Recorder) -> bool:
    """As many channels hung up as stood in the list of channels and came anew since."""
    listed = recorder.received.count(b"Event: CoreShowChannel\r\n")
    begun = recorder.received.count(b"Event: Newchannel\r\n")
    return listed + begun == recorder.received.count(b"Event: Hangup\r\n")


def _restart_now(asterisk: Asterisk) -> bytes:
    """Two calls talking and one ringing when Asterisk is told to restart."""
    plan = Plan(seed=24)
    talk = timedelta(seconds=20)
    planned = [
        plan.one("inbound_answered", talk=talk),
        plan.one("outbound_answered", tenant=town.GLOBEX, talk=talk),
        plan.one("inbound_no_answer"),
        plan.one("queue_gives_up", tenant=town.GLOBEX),
    ]
    with Recorder(asterisk) as recorder:
        placing = place(asterisk, planned, over=timedelta(seconds=0.1))
        recorder.wait_for(b"Event: BridgeEnter", times=4)
        asterisk.restart_now()
        recorder.wait_until_closed()
    placing.wait(seconds=30, disturbed=True)
    return recorder.received


def _killed(asterisk: Asterisk) -> bytes:
    plan = Plan(seed=25)
    talk = timedelta(seconds=20)
    planned = [plan.one("inbound_answered", talk=talk), plan.one("inbound_no_answer", tenant=town.GLOBEX)]
    with Recorder(asterisk) as recorder:
        placing = place(asterisk, planned, over=timedelta(seconds=0.1))
        recorder.wait_for(b"Event: BridgeEnter", times=2)
        asterisk.kill()
        recorder.wait_until_closed()
    placing.stop()
    asterisk.start()
    return recorder.received


def _booting(asterisk: Asterisk) -> bytes:
    """A log-in as early as Asterisk takes one after a restart: FullyBooted comes later, as an event."""
    asterisk.restart_now(wait=False)
    recorder: list[bytes] = []

    def logged_in() -> bool:
        try:
            with Recorder(asterisk) as session:
                recorder.append(session.received)
        except (OSError, AssertionError):
            return False
        return True

    wait_until(logged_in, what="a log-in after the restart", seconds=30)
    asterisk.wait_until_booted()
    return recorder[-1]


def _command(asterisk: Asterisk) -> bytes:
    with Ami.login(asterisk.host, asterisk.ami_port, DRIVER_USER, DRIVER_SECRET) as ami:
        ami.ask("Command", Command="core show uptime")
        ami.ask("Command", Command="no such command")
        ami.ask("Logoff")
        return ami.raw


def _click_to_call(asterisk: Asterisk) -> bytes:
    with Recorder(asterisk) as recorder:
        asterisk.originate(
            channel=f"PJSIP/{town.ACME.extension(town.ANSWERS_SOON)}",
            context=town.ACME.internal_context,
            exten=f"0532111110{town.HANGS_UP_AFTER_A_WHILE}",
            caller_id="Tıkla Ara <101>",
        )
        recorder.wait_for(b"LINKEDID_END")
        asterisk.wait_until_quiet()
        recorder.wait_for(b"Event: CEL\r\n", times=_lines(asterisk.cel_path))
    return recorder.received


_SESSIONS: dict[str, Callable[[Asterisk], bytes]] = {
    "login_plain": _login_plain,
    "login_md5": _login_md5,
    "login_refused": _login_refused,
    "command_new_style": _command,
    "live_calls": _live_calls,
    "click_to_call": _click_to_call,
    "restart_now": _restart_now,
    "killed": _killed,
    "booting": _booting,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
