"""`edge-agent replay`: real captures give the calls that Asterisk itself tells of, anything else one sentence."""

import gzip
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.cli.main import app
from agent.store.recording import RecordedPbx, RecordingHeader, StoredSegment, head_of, piece_of, told_rules
from agent.store.segment import Frame, encode
from config.settings import TenancySettings
from tests.agent_process import RUN
from tests.pbx.waiting import wait_until
from tests.unit.agent.captures import TENANCY, WIRE, disagreements, frames, truths
from tests.unit.agent.test_wire import WHOLE
from tests.unit.cli.local_site import LocalSite

SETTINGS = """
site = "here"
country = "TR"
[[pbx]]
name = "main"
username = "sentiric"
secret = "x"
[tenancy]
rules = [
    { tenant = "acme", did_prefix = "9021255510" },
    { tenant = "globex", did_prefix = "9031244420" },
    { tenant = "acme", extension_range = [100, 199] },
    { tenant = "globex", extension_range = [200, 299] },
]
"""


@pytest.fixture
def town(tmp_path: Path) -> LocalSite:
    """The settings of the town where the captures were made."""
    return LocalSite(tmp_path, SETTINGS)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever happens, nothing is left of what was derived."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    yield
    assert list(directory.iterdir()) == []


def unset(*arguments: str) -> Result:
    """A command on a machine without settings."""
    return CliRunner().invoke(app, list(arguments), env={"SENTIRIC_EDGE_CONFIG": ""}, catch_exceptions=False)


def replayed(*arguments: str) -> Any:  # Any: JSON
    result = unset("replay", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def account(record: dict[str, Any]) -> dict[str, Any]:
    """A record in the words of the truth."""
    told = {
        "native_id": record["call_sid"].rpartition(":")[2],
        "tenant": record["tenant"],
        "direction": record["direction"],
        "caller": record["caller_id"] or "",
        "caller_name": record["caller_name"] or "",
        "callee": record["callee_id"],
        "talk_seconds": record["talk_seconds"],
    }
    for key in ("start_time", "pbx_answer_time", "answer_time", "end_time"):
        told[key] = datetime.fromisoformat(record[key]) if record[key] else None
    return told | {key: record[key] for key in ("status", "disposition", "answered_by", "queue", "hangup_cause")}


@pytest.mark.parametrize("name", WHOLE)
def test_a_captured_session_gives_the_calls_that_asterisk_tells_of(town: LocalSite, name: str) -> None:
    told = town.json("replay", str(WIRE / f"{name}.ami"))

    ours = {call["call_sid"].rpartition(":")[2]: account(call) for call in told["calls"]}
    true = {call["native_id"]: call for call in truths(name)}
    assert ours.keys() == true.keys()
    assert [line for key in true for line in disagreements(ours[key], true[key])] == []
    assert (told["replay"]["in_progress"], told["replay"]["notes"]) == (0, [])


def test_what_is_told_of_a_call_has_the_shape_of_calls_show(town: LocalSite) -> None:
    (call,) = town.json("replay", str(WIRE / "inbound_answered.ami"))["calls"]

    assert call["call_sid"].startswith("here:main:")
    assert (call["tasks"], call["interactions"], call["sync"]) == ([], [], {"state": "replayed"})
    assert call["legs"]
    assert call["timeline"]
    assert "id" not in call


def test_calls_under_way_come_out_of_a_list_of_channels(town: LocalSite) -> None:
    told = town.json("replay", str(WIRE / "live_calls.ami"))

    ours = {call["call_sid"].rpartition(":")[2]: call for call in told["calls"]}
    before = frames("live_calls")[0].arrived_at
    assert ours.keys() == {call["native_id"] for call in truths("live_calls") if call["end_time"] > before}
    assert all(call["start_estimated"] for call in ours.values())
    assert told["replay"]["begun_before"] == len(ours)


def test_calls_that_still_go_on_at_the_end_are_in_progress(town: LocalSite) -> None:
    told = town.json("replay", str(WIRE / "killed.ami"))

    assert told["replay"]["in_progress"] == len(told["calls"]) == 2
    for call in told["calls"]:
        assert (call["status"], call["disposition"], call["end_time"]) == ("in_progress", None, None)
        assert call["legs"]


def test_a_line_lost_in_mid_stream_ends_calls_estimated_once_the_channels_are_listed(
    town: LocalSite, tmp_path: Path
) -> None:
    killed, again = (WIRE / "killed.ami").read_bytes(), (WIRE / "inbound_answered.ami").read_bytes()
    empty = b"Event: CoreShowChannelsComplete\r\nEventList: Complete\r\nListItems: 0\r\n\r\n"
    head, blank, rest = again.partition(b"\r\n\r\n")
    (tmp_path / "two.ami").write_bytes(killed[:-40] + head + blank + empty + rest)

    told = town.json("replay", str(tmp_path / "two.ami"))

    ended = [call for call in told["calls"] if call["end_estimated"]]
    assert (len(ended), len(told["calls"]), told["replay"]["in_progress"]) == (2, 3, 0)
    assert told["replay"]["notes"] == ["1 lost line: the PBX was logged in to again in mid-stream"]


def test_without_settings_there_are_defaults_and_options(tmp_path: Path) -> None:
    file = str(WIRE / "inbound_answered.ami")

    (call,) = replayed(file)["calls"]
    (other,) = replayed(file, "--site", "berlin", "--pbx", "old", "--trunk", "SIP/none-*", "--country", "tr")["calls"]

    assert (call["call_sid"][:12], call["direction"], call["tenant"]) == ("replay:main:", "inbound", None)
    assert other["call_sid"].startswith("berlin:old:")
    assert {leg["endpoint"] for leg in call["legs"]} == {leg["endpoint"] for leg in other["legs"]}


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("--site", "Big Site", "use 1 to 63 lower-case letters"),
        ("--pbx", "", "use 1 to 63 lower-case letters"),
        ("--country", "XX", "this is no country"),
        ("--times", "/nowhere/index", "/nowhere/index: No such file"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_sentence(option: str, value: str, what: str) -> None:
    result = unset("replay", str(WIRE / "inbound_busy.ami"), option, value)

    assert (result.exit_code, what in result.stderr) == (2, True)


def test_settings_with_several_pbxes_ask_whose_capture_it_is(town: LocalSite) -> None:
    town.write(SETTINGS + '[[pbx]]\nname = "second"\nusername = "sentiric"\nsecret = "x"\n')

    result = town.run("replay", str(WIRE / "inbound_busy.ami"))

    assert result.exit_code == 2
    assert "say which this is with --pbx: main, second" in result.stderr


# Times


def without_stamps(name: str) -> tuple[bytes, list[tuple[int, float]]]:
    """A capture as an Asterisk without timestampevents gives it, and an index of when its messages came."""
    lines: list[bytes] = []
    index: list[tuple[int, float]] = []
    begins = 0
    for line in (WIRE / f"{name}.ami").read_bytes().splitlines(keepends=True):
        if line.startswith(b"Timestamp: "):
            index.append((begins, float(line[11:])))
            continue
        lines.append(line)
        if line == b"\r\n":
            begins = sum(map(len, lines))
    return b"".join(lines), index


@pytest.mark.parametrize("ending", [".times", ".index", ".idx"])
def test_an_index_beside_a_capture_tells_its_times(town: LocalSite, tmp_path: Path, ending: str) -> None:
    data, index = without_stamps("queue_answered")
    (tmp_path / "old.ami").write_bytes(data)
    text = "".join(f"{moment:.6f},{offset}\n" for offset, moment in [(0, index[0][1]), *index])
    (tmp_path / f"old.ami{ending}").write_text("epoch,offset\n" + text)

    told = town.json("replay", str(tmp_path / "old.ami"))

    (call,), (true,) = told["calls"], truths("queue_answered")
    assert disagreements(account(call), true) == []
    assert (told["replay"]["times_from"], told["replay"]["lengths_known"]) == ("index", True)


def test_without_any_time_starts_are_known_to_the_second_and_lengths_are_not(town: LocalSite, tmp_path: Path) -> None:
    data, _ = without_stamps("inbound_answered")
    (tmp_path / "old.ami").write_bytes(data)

    told = town.json("replay", str(tmp_path / "old.ami"))
    text = town.run("replay", str(tmp_path / "old.ami"))

    (call,), (true,) = told["calls"], truths("inbound_answered")
    assert abs(datetime.fromisoformat(call["start_time"]) - true["start_time"]) < timedelta(seconds=1)
    assert (call["start_estimated"], call["end_estimated"], call["disposition"]) == (True, True, "answered")
    assert told["replay"]["lengths_known"] is False
    assert text.stdout.splitlines()[1].split()[-2] == "?"
    assert "timestampevents = yes" in text.stderr


def test_where_nothing_tells_a_time_the_files_own_is_taken(town: LocalSite, tmp_path: Path) -> None:
    data, _ = without_stamps("inbound_answered")
    file = tmp_path / "old.ami"
    file.write_bytes(data.replace(b"1795366581.", b"main-"))
    os.utime(file, (1_700_000_000, 1_700_000_000))

    told = town.json("replay", str(file))

    assert told["replay"]["times_from"] == "file"
    assert {call["start_time"] for call in told["calls"]} == {datetime.fromtimestamp(1_700_000_000, UTC).isoformat()}


def test_a_wrong_index_is_told_by_its_line(town: LocalSite, tmp_path: Path) -> None:
    file = tmp_path / "a.ami"
    file.write_bytes((WIRE / "inbound_busy.ami").read_bytes())
    (tmp_path / "a.ami.times").write_text("0 1795366581\nsoon 7\n")

    result = town.run("replay", str(file))

    assert (result.exit_code, "a.ami.times cannot be used as an index: line 2" in result.stderr) == (2, True)


# Recordings


def recording(*told: tuple[str, list[bytes]], kind: str = "asterisk", tenancy: TenancySettings = TENANCY) -> bytes:
    """A recording of PBXes that said these frames."""
    from agent.calls.rules import CallRules

    names = sorted({name for name, _ in told})
    header = RecordingHeader(
        made_at=datetime(2026, 11, 22, tzinfo=UTC),
        site="there",
        tenancy=tenancy,
        pbx=tuple(RecordedPbx(name=name, kind=kind, rules=told_rules(CallRules())) for name in names),
    )
    at = frames("inbound_busy")[0].arrived_at
    return head_of(header) + b"".join(
        piece_of(StoredSegment(name, "boot", 1, at, 0, encode([Frame(0, raw) for raw in raws]))) for name, raws in told
    )


BUSY = [frame.raw for frame in frames("inbound_busy")]


def test_a_recording_brings_its_site_and_rules(tmp_path: Path) -> None:
    (tmp_path / "a.rec").write_bytes(recording(("main", BUSY), ("second", BUSY)))

    both = replayed(str(tmp_path / "a.rec"))
    one = replayed(str(tmp_path / "a.rec"), "--pbx", "second")

    assert [call["call_sid"].split(":")[:2] for call in both["calls"]] == [["there", "main"], ["there", "second"]]
    assert {call["tenant"] for call in both["calls"]} == {"globex"}
    assert [call["pbx"] for call in one["calls"]] == ["second"]


def test_a_recording_that_is_cut_off_is_replayed_up_to_the_cut(tmp_path: Path) -> None:
    whole = recording(("main", BUSY), ("second", BUSY))
    (tmp_path / "a.rec").write_bytes(whole[:-10])

    told = replayed(str(tmp_path / "a.rec"))

    assert [call["pbx"] for call in told["calls"]] == ["main"]
    assert told["replay"]["notes"] == ["the recording is cut off; it was read up to the cut"]


def test_a_pbx_of_a_kind_unknown_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.rec").write_bytes(recording(("main", BUSY), kind="freeswitch"))

    told = replayed(str(tmp_path / "a.rec"))

    assert told["calls"] == []
    assert "is of kind freeswitch, which this version does not know" in told["replay"]["notes"][0]


# What cannot be replayed


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; there is nothing to replay"),
        (os.urandom(5000), "cannot be replayed: it is neither"),
        (gzip.compress(b"Asterisk Call Manager/11.0.0\r\n"), "packed with gzip"),
        (b"sentiric-edge recording\n", "beginning is cut off"),
        (b"sentiric-edge recording\n" + os.urandom(500), "cannot be replayed"),
        (b"sentiric-edge recor", "cannot be replayed"),
        (b"\0" * 100_000, "cannot be replayed"),
        (b"A" * 3_000_000, "cannot be replayed"),
    ],
)
def test_a_file_that_is_nothing_of_the_kind_is_one_sentence(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "x").write_bytes(content)

    result = unset("replay", str(tmp_path / "x"))

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert what in result.stderr


def test_a_directory_a_pipe_and_a_missing_file_are_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path, what in (
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "is no plain file"),
        (tmp_path / "no", "No such"),
    ):
        result = unset("replay", str(path))
        assert (result.exit_code, what in result.stderr, result.stderr.count("\n")) == (2, True, 1)


def test_garbage_and_huge_messages_between_events_cost_nothing_but_themselves(town: LocalSite, tmp_path: Path) -> None:
    data = (WIRE / "inbound_answered.ami").read_bytes()
    garbage = os.urandom(20_000).replace(b"\r\n", b"") + b"\r\n\r\n"
    huge = b"Event: Huge\r\nValue: " + b"x" * 5_000_000 + b"\r\n\r\n"
    head, blank, rest = data.partition(b"\r\n\r\n")
    (tmp_path / "x.ami").write_bytes(head + blank + garbage + huge + rest + b"Event: Newchannel\r\nUniqueid: \xff\r\n")

    told = town.json("replay", str(tmp_path / "x.ami"))

    (call,), (true,) = told["calls"], truths("inbound_answered")
    assert disagreements(account(call), true) == []
    assert told["replay"]["notes"] == [
        "1 message longer than any honest one left out",
        "the capture ends in the middle of a message",
    ]


def test_a_replay_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    (tmp_path / "long.ami").write_bytes((WIRE / "live_calls.ami").read_bytes() * 1000)
    environ = {**os.environ, "TMPDIR": str(scratch), "SENTIRIC_EDGE_CONFIG": ""}
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([*RUN, "replay", str(tmp_path / "long.ami")], env=environ, stderr=subprocess.DEVNULL)
        wait_until(lambda: any(scratch.glob("*/edge.db")), what="the scratch database", seconds=20)
        process.send_signal(number)

        assert process.wait(timeout=20) == 128 + number
        assert list(scratch.iterdir()) == []
