"""A line to a PBX that breaks between two frames of a capture and is connected again later.

What the PBX lists when the agent is back is derived here from the whole capture by a small model of its own, which
knows nothing of the product's: channels that were made and not yet hung up, each as the latest frame about it tells.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from agent.calls.events import CallEvent
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN, AsteriskInterpreter
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.feed import LINE_LOST
from agent.store.accounts import decoded
from agent.store.merge import ToldCall, merging
from agent.store.rows import CONTENT
from agent.store.schema import bring_up_to_date
from agent.store.writer import FinishedCall, write_finished
from tests.pbx.stage.truth import CallTruth
from tests.unit.agent.captures import Frame, frames
from tests.unit.agent.cel_files import Rows

ENCODING: Final = "cp1254"
_NOW: Final = "2026-11-22 12:00:00.000000"
_TOLERANCE: Final = timedelta(seconds=0.05)
# `source` may differ, and the others are compared with the truth.
NOT_COMPARED: Final = frozenset({"source", "legs", "timeline"})
# Asterisk's own name for a leg that an application reaches somebody with.
_REACHING: Final = {"Queue": "AppQueue", "Originate": "AppDial2"}
_OF_A_SNAPSHOT: Final = (
    "Channel", "ChannelState", "CallerIDNum", "CallerIDName", "ConnectedLineNum", "ConnectedLineName", "AccountCode",
    "Context", "Exten", "Priority", "Uniqueid", "Linkedid",
)  # fmt: skip


@dataclass(slots=True)
class _Channel:
    born_at: datetime
    block: dict[str, str]
    application: str = ""
    data: str = ""
    bridge: str = ""

    def listed(self, at: datetime) -> bytes:
        seconds = int((at - self.born_at).total_seconds())
        told = self.block | {
            "Application": self.application,
            "ApplicationData": self.data,
            "Duration": f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
            "BridgeId": self.bridge,
        }
        lines = ["Event: CoreShowChannel", *(f"{name}: {value}" for name, value in told.items())]
        return "\r\n".join(lines).encode()


@dataclass(slots=True)
class Exchange:
    """The channels of the PBX that a capture is of, while it is played."""

    channels: dict[str, _Channel] = field(default_factory=dict)

    def hear(self, frame: Frame) -> None:
        """What the next frame tells of them."""
        message = AmiMessage(frame.raw, ENCODING)
        get = message.get
        if message.name == "Newchannel":
            self.channels[get("uniqueid")] = _Channel(frame.arrived_at, {})
        for prefix in ("", "dest", "origtransferer", "secondtransferer", "transferee", "transfertarget", "parkee"):
            self._see(message, prefix)
        channel = self.channels.get(get("uniqueid"))
        match message.name:
            case "DialBegin" if get("destuniqueid") in self.channels:
                reached = self.channels[get("destuniqueid")]
                if not reached.application:
                    dialler = channel.application if channel is not None else "Originate"
                    reached.application, reached.data = _REACHING.get(dialler, "AppDial"), "(Outgoing Line)"
            case "Hangup":
                self.channels.pop(get("uniqueid"), None)
            case "Rename" if channel is not None:
                channel.block["Channel"] = get("newname")
            case "Newexten" if channel is not None:
                channel.application, channel.data = get("application"), get("appdata")
            case "BridgeEnter" if channel is not None:
                channel.bridge = get("bridgeuniqueid")
            case "BridgeLeave" if channel is not None and channel.bridge == get("bridgeuniqueid"):
                channel.bridge = ""
            case "BridgeMerge":
                for each in self.channels.values():
                    if each.bridge == get("frombridgeuniqueid"):
                        each.bridge = get("tobridgeuniqueid")
            case "CEL" if (told := self.channels.get(get("uniqueid"))) is not None:
                told.block["Linkedid"] = get("linkedid") or told.block.get("Linkedid", "")
                if get("application") or get("eventname") == "APP_END":
                    told.application, told.data = get("application"), get("appdata")
            case _:
                pass

    def _see(self, message: AmiMessage, prefix: str) -> None:
        get = message.get
        channel = self.channels.get(get(f"{prefix}uniqueid"))
        if channel is not None and get(f"{prefix}channelstate"):
            channel.block = {name: get(f"{prefix}{name.lower()}") for name in _OF_A_SNAPSHOT}

    def listed(self, at: datetime) -> list[bytes]:
        """The answer to CoreShowChannels, and the mark that it is complete."""
        channels = [channel.listed(at) for channel in self.channels.values()]
        return [*channels, b"Event: CoreShowChannelsComplete\r\nEventList: Complete", SNAPSHOT_TAKEN]


@dataclass(frozen=True, slots=True)
class Break:
    """After so many frames the line breaks; then so many are lost, and so many are heard before the list is there."""

    after: int
    lost: int
    before_list: int = 0


def breaks_of(name: str) -> Iterator[Break]:
    """One for each boundary between two frames, each of another kind than the one before it.

    Breaks are the same if between them only frames stand that say nothing of calls.
    """
    count, seen = len(frames(name)), set()
    told = [0, *accumulate(event is not None for event in heard_whole(name))]
    for after in range(count + 1):
        rest = count - after
        kinds = (Break(after, min(1, rest)), Break(after, min(7, rest), min(2, max(0, rest - 7))), Break(after, rest))
        cut = kinds[after % len(kinds)]
        resumed = cut.after + cut.lost
        listed = resumed + cut.before_list
        key = told[cut.after], told[resumed], told[listed], tuple(lists_of(name)[listed])
        if key not in seen:
            seen.add(key)
            yield cut


@cache
def lists_of(name: str) -> list[list[bytes]]:
    """What the PBX would have listed after so many frames."""
    exchange, lists = Exchange(), [Exchange().listed(frames(name)[0].arrived_at)]
    for frame in frames(name):
        exchange.hear(frame)
        lists.append(exchange.listed(frame.arrived_at))
    return lists


@cache
def heard_whole(name: str) -> list[CallEvent | None]:
    """What each frame means."""
    interpreter = AsteriskInterpreter(ENCODING)
    return [interpreter.interpret(frame.raw, frame.arrived_at) for frame in frames(name)]


def heard(name: str, cut: Break | None) -> Iterator[CallEvent]:
    """What the call model is told."""
    played, told = frames(name), heard_whole(name)
    if cut is None:
        yield from _events(told)
        return
    yield from _events(told[: cut.after])
    resumed = cut.after + cut.lost
    listed = resumed + cut.before_list
    interpreter = AsteriskInterpreter(ENCODING)
    broke_at = played[max(0, cut.after - 1)].arrived_at
    list_at = played[max(0, listed - 1)].arrived_at + timedelta(microseconds=1)
    marks = [interpreter.interpret(LINE_LOST, broke_at)]
    listed_events = [interpreter.interpret(raw, list_at) for raw in lists_of(name)[listed]]
    yield from _events(marks)
    yield from _events(told[resumed:listed])
    yield from _events(listed_events)
    yield from _events(told[listed:])


def _events(told: Sequence[CallEvent | None]) -> Iterator[CallEvent]:
    return (event for event in told if event is not None)


# What becomes of it


class Ledger:
    """The agent's database, where what the line told is written first and what was written down comes after it."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        bring_up_to_date(self._connection, Path("memory"))

    def kept(self, *accounts: Rows) -> Rows:
        """The calls as they stand there once all was told in that order; the next ones begin anew."""
        return {sid: row for sid, (_, row) in self.with_revisions(*accounts).items()}

    def with_revisions(self, *accounts: Rows) -> dict[str, tuple[int, dict[str, Any]]]:  # Any: columns
        """The same, each with its revision."""
        connection = self._connection
        connection.execute("BEGIN")
        for told in accounts:
            self._tell(told)
        names = ("revision", "call_sid", *CONTENT)
        found = connection.execute(f"SELECT {', '.join(names)} FROM call").fetchall()
        connection.execute("ROLLBACK")
        calls = (dict(zip(names, values, strict=True)) for values in found)
        return {str(row["call_sid"]): (row.pop("revision"), decoded(row)) for row in calls}

    def _tell(self, told: Rows) -> None:
        """What the live feed told is the tracker's to write."""
        for row in told.values():
            if row["source"] == "ami":
                write_finished(self._connection, [FinishedCall(row, None)], now=_NOW)
            else:
                merging([ToldCall.of(row)], now=_NOW)(self._connection)


def disagreements(calls: Rows, unbroken: Rows, *, but: Collection[str] = ()) -> list[str]:
    """A line for each column that is told otherwise than without the break."""
    lines = [f"{sid} is missing" for sid in unbroken.keys() - calls.keys()]
    for sid, true in unbroken.items():
        told = calls.get(sid, true)
        columns = [name for name in true if name not in NOT_COMPARED and name not in but]
        lines += [
            f"{sid}: {name} is {true[name]}, told {told[name]}"
            for name in columns
            if not _alike(true[name], told[name])
        ]
    return lines


def _alike(one: object, other: object) -> bool:
    """Whether two accounts say the same: each hears of a moment some milliseconds after the other."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) <= _TOLERANCE
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 2 * _TOLERANCE.total_seconds()
    return one == other


def without(truth: CallTruth, events: tuple[str, ...]) -> CallTruth:
    """The truth with some kinds of events left out of its timeline."""
    steps = ({step} if isinstance(step, str) else set(step) for step in truth.timeline)
    left = ({one for one in step if not one.removeprefix("?").startswith(events)} for step in steps)
    return replace(truth, timeline=[step for step in left if step])
