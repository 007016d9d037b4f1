"""An agent that dies after any frame of a captured call; of the rest there are only CDRs, in whole seconds."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from agent.calls.merging import with_account
from agent.pbx.asterisk.cdr import CdrRow
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.feed import LINE_LOST
from tests.unit.agent.captures import WIRE, Frame, events, frames, played, truths
from tests.unit.agent.cdrs import call as cdr_call
from tests.unit.agent.cdrs import master_line, rows

# Begun before the capture, or ended by what is no call; and a click, which to Asterisk is the call of who clicked.
LEFT_OUT = {"killed", "live_calls", "restart_now", "click_to_call"}
NAMES = sorted(
    path.stem for path in WIRE.glob("*.ami") if b"Event: Cdr" in path.read_bytes() and path.stem not in LEFT_OUT
)
NOTHING_LISTED = b"Event: CoreShowChannelsComplete\r\nEventList: Complete\r\nListItems: 0"
COLUMNS = {
    "src": "Source", "dst": "Destination", "dcontext": "DestinationContext", "clid": "CallerID", "channel": "Channel",
    "dstchannel": "DestinationChannel", "lastapp": "LastApplication", "lastdata": "LastData", "start": "StartTime",
    "answer": "AnswerTime", "end": "EndTime", "duration": "Duration", "billsec": "BillableSeconds",
    "disposition": "Disposition", "uniqueid": "UniqueID", "linkedid": "Linkedid", "sequence": "Sequence",
}  # fmt: skip


def cdrs(told: Iterable[Frame]) -> dict[str, list[CdrRow]]:
    """The CDRs that Asterisk told of its calls, as it also writes them into Master.csv, by call."""
    found: dict[str, list[CdrRow]] = defaultdict(list)
    for frame in told:
        message = AmiMessage(frame.raw)
        if message.get("event") == "Cdr":
            line = master_line(**{column: message.get(key.lower()) for column, key in COLUMNS.items()})
            found[message.get("linkedid")] += rows(line)
    return dict(found)


def told_after_a_death(told: list[Frame], by_cdr: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The calls, of which an agent that was killed after these frames heard the beginning. Any: columns."""
    died_at = told[-1].arrived_at
    back_at = died_at + timedelta(minutes=1)
    ending = [Frame(LINE_LOST, died_at), Frame(NOTHING_LISTED, back_at), Frame(SNAPSHOT_TAKEN, back_at)]
    heard = {call.native_id: call.to_row() for call in played(events([*told, *ending])).take_ended()}
    return {
        key: with_account(heard[key], {}, told_by_it)[0] if key in heard else told_by_it
        for key, told_by_it in by_cdr.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_a_killed_agent_did_not_hear_is_told_by_cdrs(name: str) -> None:
    heard = frames(name)
    by_cdr = {key: cdr_call(*lines) for key, lines in cdrs(heard).items()}
    true = {call["native_id"]: call for call in truths(name)}
    assert by_cdr.keys() == true.keys()

    wrong = []
    for count in range(1, len(heard) + 1):
        for key, call in told_after_a_death(heard[:count], by_cdr).items():
            told = {column: call[column] for column in ("direction", "status", "disposition", "answered_by")}
            is_as_true = all(true[key][column] == value for column, value in told.items())
            moments = (("start_time", timedelta(seconds=1)), ("end_time", timedelta(seconds=2)))
            is_in_time = all(abs(call[column] - true[key][column]) <= slack for column, slack in moments)
            if not (is_as_true and is_in_time):
                wrong.append(f"after {count} frames: {told}, {call['start_time']} to {call['end_time']}")
    assert not wrong, "\n".join(wrong[:5])
