"""Whatever bytes a PBX sends for a name, the call comes whole to PostgreSQL: none is refused for its text."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.calls.context import TaskState
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.store.engine import open_store
from agent.store.outbox import SqliteOutbox
from agent.store.outbox_rows import COPIED, VALUES, Form
from agent.store.writer import FinishedCall, Group, Writer
from config.settings import TenancySettings
from sync.central.database import CentralDatabase
from sync.records import Receipt, Verdict
from tests.fakes_sync import HOLDER, LEASE
from tests.postgres import PostgresDatabase

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
NAMES = {
    "utf-8": ("Şükrü İğne".encode(), "Şükrü İğne"),
    "iso-8859-9": ("ŞÜKRÜ GÜNEŞ ığ".encode("iso-8859-9"), "ŞÜKRÜ GÜNEŞ ığ"),
    "cp1254": ("Çiğdem – „Ağa“ €".encode("cp1254"), "Çiğdem – „Ağa“ €"),
    "cp1252": ("Müller”".encode("cp1252"), "Müller”"),
    "mixed": ("Ayşe ".encode() + "Işık".encode("cp1254"), "Ayşe Işık"),
    "read twice": ("AyÅŸe Ã–ztÃ¼rk".encode(), "Ayşe Öztürk"),
    "cut": ("Gülşen Iş".encode()[:-1], "Gülşen I\ufffd"),
    "replaced by the PBX": ("\ufffdükrü".encode(), "\ufffdükrü"),
    "a hole": (b"A\x9eB\x81", "A\ufffdB\ufffd"),
    "a half of a pair": (b"A\xed\xa0\xbdB", "Aí\xa0½B"),
    "NUL": (b"A\0B", "A\ufffdB"),
    "control characters": (b"A\x01\x1b[31m\x7f\x08B", "A\x01\x1b[31m\x7f\x08B"),
    "an escaped NUL": (rb"A\u0000B", "Au0000B"),
    "beyond the basic plane": ("Ali 😀 𐱅𐰇𐰼𐰰".encode(), "Ali 😀 𐱅𐰇𐰼𐰰"),
    "without end": ("Ş".encode() * 5000, "Ş" * 254 + "…"),
}

SPOILT_BY = {  # by the key of the call that it spoils
    1: "UPDATE call SET start_time = 'yesterday' WHERE id = 1",
    2: "UPDATE call SET legs = '[{' WHERE id = 2",
    3: "INSERT INTO task (call_id, position, task_name, state_data, start_time)"
    " SELECT id, 0, 'x', '{', start_time FROM call WHERE id = 3",
    4: "UPDATE call SET caller_name = x'ff00' WHERE id = 4",
    5: "UPDATE call SET caller_name = CAST(x'ff' AS TEXT) WHERE id = 5",
}


@pytest.fixture
async def central(central_database: PostgresDatabase) -> AsyncIterator[CentralDatabase]:
    await central_database.add_speaking_site("here", "acme")
    database = CentralDatabase(central_database.address, application_name="test", agent_version=None)
    yield database
    await database.close()


def a_call(number: int, name: bytes) -> FinishedCall:
    """A call by this name as Asterisk tells it, with the name in every field that can hold one."""
    common = b"Uniqueid: %d.1\r\nLinkedid: %d.1\r\nChannel: PJSIP/101-1\r\n" % (number, number)
    frames = [
        b"Event: Newchannel\r\n" + common + b"CallerIDNum: " + name + b"\r\nCallerIDName: " + name + b"\r\n"
        b"Context: " + name + b"\r\nExten: " + name + b"\r\nAccountCode: " + name,
        b"Event: QueueCallerJoin\r\n" + common + b"Queue: " + name + b"\r\nPosition: 1",
        b"Event: Hangup\r\n" + common + b"Cause: 16",
    ]
    interpreter = AsteriskInterpreter("cp1254")
    tenancy = TenancySettings(default="acme")
    model = CallModel(site="here", pbx="main", rules=CallRules(), assign=lambda facts: assign(tenancy, facts))
    for frame in frames:
        event = interpreter.interpret(frame, AT)
        assert event is not None
        model.apply(event)
    [call] = model.take_ended()
    return FinishedCall(call.to_row(), "acme")


async def sent(
    calls: list[FinishedCall],
    central: CentralDatabase,
    directory: Path,
    *,
    form: Form = COPIED,
    spoilt_by: Sequence[str] = (),
) -> Receipt:
    """Kept in SQLite, and from its outbox to the centre."""
    async with open_store(directory / "edge.db") as store:
        writer = await Writer.over(store.connection)
        await writer.commit(Group(finished=calls))
        for statement in spoilt_by:
            await store.connection.transact(lambda connection, it=statement: connection.execute(it).fetchall())  # type: ignore[misc]
        batch = await SqliteOutbox(store, writer, site="here", form=form).next_batch(limit=100)
        assert batch is not None
        return await central.store(replace(batch, holder=HOLDER, lease=LEASE))


async def test_names_in_any_bytes_come_whole_to_the_centre(
    central: CentralDatabase, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    calls = [a_call(number, name) for number, (name, _) in enumerate(NAMES.values(), 1)]

    receipt = await sent(calls, central, tmp_path)

    assert {verdict.verdict for verdict in receipt.verdicts} == {Verdict.ACCEPTED}
    stored = await central_database.fetch("SELECT caller_name, legs ->> 0 AS leg FROM call ORDER BY id")
    by_name = {row["caller_name"] for row in stored}
    assert by_name == {meant for _, meant in NAMES.values()}
    assert all(row["leg"] for row in stored)


async def test_what_services_note_of_a_call_is_never_refused_for_its_text(
    central: CentralDatabase, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    odd = {"nul \0": "a\0b", "half": "\ud83d", "deep": [{"a": ["\0", float("nan")]}], "literally": "\\u0000"}
    call = FinishedCall(
        {**a_call(1, b"Ali").row, "full_transcript": [odd]},
        "acme",
        tasks=[TaskState(task_name="book\0", state_data=odd, start_time=AT)],
        interactions=[odd],
    )

    receipt = await sent([call], central, tmp_path)

    assert [verdict.verdict for verdict in receipt.verdicts] == [Verdict.ACCEPTED]
    [task] = await central_database.fetch(
        "SELECT task_name, state_data ->> 'nul \ufffd' AS nul, state_data ->> 'literally' AS literally FROM task"
    )
    assert tuple(task) == ("book\ufffd", "a\ufffdb", "\\u0000")


@pytest.mark.parametrize("form", [VALUES, COPIED])
@pytest.mark.parametrize("spoilt", [[1], [2], [3], [4], [5], [1, 2, 3, 4, 5]])
async def test_calls_that_are_spoilt_on_the_disk_are_refused_alone(
    central: CentralDatabase, tmp_path: Path, form: Form, spoilt: list[int]
) -> None:
    calls = [a_call(number, b"Ali") for number in range(1, 7)]

    receipt = await sent(calls, central, tmp_path, form=form, spoilt_by=[SPOILT_BY[number] for number in spoilt])

    refused = [number for number, one in enumerate(receipt.verdicts, 1) if one.verdict is Verdict.REJECTED]
    assert refused == spoilt
    assert len(receipt.verdicts) == len(calls)
