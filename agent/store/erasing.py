"""Takes a person out of the database: calls, what services wrote, what sources told, and the journal's frames.

In small transactions between those of capture, so that it may take its time. Calls stay as emptied rows, as a new
revision that is sent, so that counts stay true and the centre empties them too. A run that was broken off is begun
again; what is gone is not found a second time. SQLite overwrites what it deletes (`secure_delete`), and the write-ahead
log is cut at the end.
"""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from agent.calls.person import Person
from agent.store import erasures, rows
from agent.store.engine import Store
from agent.store.erasures import NUMBERS
from agent.store.history import pbx_names
from agent.store.segment import Frame, SegmentDamaged, decode, encode
from agent.store.writer import Writer, enqueue

_LOOK: Final = 500  # calls looked at in one read
_STEP: Final = 50  # calls emptied in one transaction
_SEGMENTS: Final = 50  # of the journal looked at in one read
_CHECKPOINTS: Final = 20
_CHECKPOINT_PAUSE_SECONDS: Final = 0.25

_PARTY: Final = (*NUMBERS, "caller_name", "legs", "timeline")
_NAMED: Final = ("full_transcript", "recording")


@dataclass(slots=True)
class Progress:
    """How far an erasure is."""

    looked_at: int = 0  # calls
    calls: int = 0  # of the person: emptied, or to be
    mentions: int = 0  # calls of others in which the number was named
    frames: int = 0  # taken out of the journal
    rejects: int = 0  # lines of sources that were no record
    still_live: int = 0  # calls with the number that go on: they and their frames are left for another run
    journal_kept: bool = False  # calls of other tenants bear the number too, and a frame is nobody's
    damaged: int = 0  # segments that cannot be read
    log_is_cut: bool = False  # nothing is left in the write-ahead log
    done: bool = False

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        return asdict(self)


class Erasing:
    """One run.

    `live` tells which calls go on that bear the number, or may: they are left for another run. `on_emptied` hears
    after each step which calls were emptied or changed, to forget them elsewhere.
    """

    def __init__(
        self,
        person: Person,
        *,
        store: Store,
        writer: Writer,
        tenant: str | None,
        by: str,
        live: Callable[[Person], Iterable[str]],
        dry_run: bool,
        on_emptied: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self._person = person
        self._store = store
        self._writer = writer
        self._tenant = tenant
        self._by = by
        self._live = live
        self._dry_run = dry_run
        self._on_emptied = on_emptied
        self._progress = Progress()

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Do it, telling now and then how far it is; at last with `done`."""
        progress = self._progress
        live = list(self._live(self._person))
        progress.still_live = len(live)
        erasure_id = None if self._dry_run else await self._begin()
        async for found in self._found():
            sids = [sid for _, sid, _ in found]
            progress.calls += sum(is_party for _, _, is_party in found)
            progress.mentions += sum(not is_party for _, _, is_party in found)
            if erasure_id is not None:
                await self._writer.transact(partial(self._empty, found, erasure_id))
                self._on_emptied(sids)
            yield progress
        progress.journal_kept = self._tenant is not None and await self._is_others()
        if not progress.journal_kept:
            progress.rejects = await self._rejects()
            async for _ in self._frames(live):
                yield progress
        if erasure_id is not None:
            await self._writer.transact(partial(self._end, erasure_id))
            progress.log_is_cut = await self._cut_log()
        progress.done = True
        yield progress

    # Calls

    async def _found(self) -> AsyncIterator[list[tuple[int, str, bool]]]:
        """Id and name of each call that bears the number, and whether it is the person's, some at a time."""
        last = 0
        while True:
            part = await self._store.reader.run(partial(self._look, last))
            if part is None:
                return
            looked_at, last, found = part
            self._progress.looked_at += looked_at
            for start in range(0, len(found), _STEP):
                yield found[start : start + _STEP]
            await asyncio.sleep(0)

    def _look(self, last: int, connection: sqlite3.Connection) -> tuple[int, int, list[tuple[int, str, bool]]] | None:
        ids = [
            key for (key,) in connection.execute("SELECT id FROM call WHERE id > ? ORDER BY id LIMIT ?", (last, _LOOK))
        ]
        if not ids:
            return None
        self._teach(connection)
        values = {"first": ids[0], "last": ids[-1], "tenant": self._tenant}
        return len(ids), ids[-1], [(key, sid, bool(party)) for key, sid, party in connection.execute(_FIND, values)]

    def _teach(self, connection: sqlite3.Connection) -> None:
        """SQL knows `bears` and `names`: whether a value holds the number, and whether it can mean nothing else."""
        person = self._person
        names = person.stands_in if person.is_telling else lambda _: False
        for name, stands_in in (("bears", person.stands_in), ("names", names)):
            connection.create_function(name, 1, partial(_in_value, stands_in), deterministic=True)

    def _empty(self, found: list[tuple[int, str, bool]], erasure_id: int, connection: sqlite3.Connection) -> None:
        """Inside a transaction."""
        now, sent = self._writer.now_text(), []
        for key, sid, is_party in found:
            if is_party:
                self._empty_call(connection, key, sid)
                erasures.seal(connection, erasure_id, [sid])
            else:
                self._mark_call(connection, key, sid)
            revision, tenant_id = connection.execute(
                "UPDATE call SET revision = revision + 1, updated_at = ? WHERE id = ? RETURNING revision, tenant_id",
                (now, key),
            ).fetchone()
            connection.execute(
                "DELETE FROM quarantine WHERE call_id = ?", (key,)
            )  # what the centre said of what is gone
            if tenant_id is not None:
                sent.append((key, revision))
        enqueue(connection, sent, at=now)

    def _empty_call(self, connection: sqlite3.Connection, key: int, sid: str) -> None:
        names = (*NUMBERS, "caller_name")
        told = connection.execute(f"SELECT {', '.join(names)} FROM call WHERE id = ?", (key,)).fetchone()  # noqa: S608 - our own words
        row = dict(zip(names, told, strict=True))
        is_person = {name: value is not None and self._person.stands_in(value) for name, value in row.items()}
        is_person["caller_id"] = is_person["caller_id"] or is_person["caller_name"]
        changes = erasures.emptied(row, is_person)
        columns = ", ".join(f"{name} = ?" for name in changes)
        connection.execute(f"UPDATE call SET {columns} WHERE id = ?", (*changes.values(), key))  # noqa: S608 - as above
        for table in ("task", "interaction", "account"):
            connection.execute(f"DELETE FROM {table} WHERE call_id = ?", (key,))  # noqa: S608 - as above
        connection.execute("DELETE FROM context_operation WHERE call_sid = ?", (sid,))

    def _mark_call(self, connection: sqlite3.Connection, key: int, sid: str) -> None:
        """Another's call in which the number was named: the rest of what was said stays."""
        self._teach(connection)
        for table, column, name, value in (
            ("call", "full_transcript", "id", key),
            ("task", "state_data", "call_id", key),
            ("interaction", "data", "call_id", key),
            ("account", "told", "call_id", key),
            ("context_operation", "content", "call_sid", sid),
        ):
            query = f"SELECT rowid, {column} FROM {table} WHERE {name} = ? AND bears({column})"  # noqa: S608 - our own words
            for rowid, text in connection.execute(query, (value,)).fetchall():
                marked = rows.json_text(self._person.without_in(json.loads(text)))
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (marked, rowid))  # noqa: S608 - as above
        connection.execute("UPDATE call SET recording = NULL WHERE id = ? AND bears(recording)", (key,))
        connection.execute("UPDATE task SET task_name = '[erased]' WHERE call_id = ? AND bears(task_name)", (key,))

    async def _is_others(self) -> bool:
        """Whether the number stands in a call of another tenant."""

        def look(connection: sqlite3.Connection) -> bool:
            self._teach(connection)
            return connection.execute(_OTHERS, (self._tenant,)).fetchone() is not None

        return await self._store.reader.run(look)

    # What stands beside calls

    async def _rejects(self) -> int:
        def count(connection: sqlite3.Connection) -> int:
            self._teach(connection)
            return int(connection.execute("SELECT count(*) FROM source_reject WHERE bears(raw)").fetchone()[0])

        def delete(connection: sqlite3.Connection) -> int:
            self._teach(connection)
            return connection.execute("DELETE FROM source_reject WHERE bears(raw)").rowcount

        return await (self._store.reader.run(count) if self._dry_run else self._writer.transact(delete))

    async def _frames(self, live: list[str]) -> AsyncIterator[None]:
        """Segments without the frames that bear the number, up to where a live call of the person began."""
        for pbx in await self._store.reader.run(pbx_names):
            last = 0
            floor = await self._store.reader.run(partial(_first_needed, pbx, live))
            while True:
                part = await self._store.reader.run(partial(self._look_at_segments, pbx, last, floor))
                if part is None:
                    break
                last, bearing = part
                self._progress.frames += sum(bearing.values())
                if bearing and not self._dry_run:
                    await self._writer.transact(partial(self._rewrite, list(bearing)))
                yield

    def _look_at_segments(
        self, pbx: str, last: int, floor: int, connection: sqlite3.Connection
    ) -> tuple[int, dict[int, int]] | None:
        found = connection.execute(_SEGMENT, (pbx, last, floor, _SEGMENTS)).fetchall()
        if not found:
            return None
        bearing = {}
        for key, blob in found:
            try:
                frames = decode(blob)
            except SegmentDamaged:
                self._progress.damaged += 1
                continue
            if count := sum(map(self._is_in, frames)):
                bearing[key] = count
        return found[-1][0], bearing

    def _is_in(self, frame: Frame) -> bool:
        return self._person.stands_in(frame.data.decode("latin-1"))

    def _rewrite(self, keys: list[int], connection: sqlite3.Connection) -> None:
        for key in keys:
            found = connection.execute("SELECT blob FROM journal_segment WHERE id = ?", (key,)).fetchone()
            if found is None:
                continue  # pruned meanwhile
            frames = [frame for frame in decode(found[0]) if not self._is_in(frame)]
            raw_size = sum(len(frame.data) for frame in frames)
            # In its own place, deleted and put back: the counter of bytes is kept by triggers of these.
            row = connection.execute("DELETE FROM journal_segment WHERE id = ? RETURNING *", (key,))
            names = [column[0] for column in row.description]
            values = dict(zip(names, row.fetchone(), strict=True))
            values |= {"blob": encode(frames), "frame_count": len(frames), "raw_size": raw_size}
            marks = ", ".join("?" * len(names))
            connection.execute(
                f"INSERT INTO journal_segment ({', '.join(names)}) VALUES ({marks})",  # noqa: S608 - our own words
                [values[name] for name in names],
            )

    # The erasure itself

    async def _begin(self) -> int:
        salt = secrets.token_bytes(32)
        forms = sorted(self._person.forms(), key=lambda form: form != self._person.number)
        hashes = [erasures.hash_of(form, salt) for form in forms]

        def begin(connection: sqlite3.Connection) -> int:
            found = connection.execute(
                'INSERT INTO erasure (at, "by", tenant, salt, hashes, calls, mentions, frames) '
                "VALUES (?, ?, ?, ?, ?, 0, 0, 0) RETURNING id",
                (self._writer.now_text(), self._by, self._tenant, salt, rows.json_text(hashes)),
            ).fetchone()
            return int(found[0])

        return await self._writer.transact(begin)

    def _end(self, erasure_id: int, connection: sqlite3.Connection) -> None:
        told = self._progress
        # What a service had sent just before its call was emptied, and was kept just after.
        connection.execute("DELETE FROM context_operation WHERE call_sid IN (SELECT call_sid FROM erased_call)")
        connection.execute(
            "UPDATE erasure SET calls = ?, mentions = ?, frames = ?, ended_at = ? WHERE id = ?",
            (told.calls, told.mentions, told.frames, self._writer.now_text(), erasure_id),
        )

    async def _cut_log(self) -> bool:
        """Write everything into the database itself; the log, where old pages stand, is empty then."""
        for _ in range(_CHECKPOINTS):
            if await self._writer.cut_log():
                return True
            await asyncio.sleep(_CHECKPOINT_PAUSE_SECONDS)  # somebody reads
        return False


def is_of(person: Person, row: Mapping[str, Any]) -> bool:  # Any: the columns' own types
    """Whether a call, told as a row, is one of the person's."""
    return person.stands_in(rows.json_text({name: row.get(name) for name in _PARTY}))


def live_calls(connection: sqlite3.Connection) -> list[str]:
    """The calls that had not ended when the agent stopped; whose they are is only in the journal."""
    return [sid for (sid,) in connection.execute("SELECT call_sid FROM live_call").fetchall()]


def _in_value(stands_in: Callable[[str], bool], value: object) -> bool:
    match value:
        case str():
            return stands_in(value)
        case bytes():
            return stands_in(value.decode("latin-1"))
        case _:
            return False


def _first_needed(pbx: str, live: list[str], connection: sqlite3.Connection) -> int:
    """The segment in which the oldest of these live calls began; beyond all if there is none."""
    found = connection.execute(
        "SELECT min(journal_id) FROM live_call WHERE pbx = ? AND call_sid IN (SELECT value FROM json_each(?))",
        (pbx, rows.json_text(live)),
    ).fetchone()[0]
    return 1 << 62 if found is None else int(found)


_IS_PARTY: Final = " OR ".join(f"bears(call.{name})" for name in _PARTY)
_IS_NAMED: Final = " OR ".join(
    [
        *(f"names(call.{name})" for name in _NAMED),
        "EXISTS (SELECT 1 FROM task WHERE task.call_id = call.id AND (names(state_data) OR names(task_name)))",
        "EXISTS (SELECT 1 FROM interaction WHERE interaction.call_id = call.id AND names(data))",
        "EXISTS (SELECT 1 FROM account WHERE account.call_id = call.id AND names(told))",
        "EXISTS (SELECT 1 FROM context_operation AS note WHERE note.call_sid = call.call_sid AND names(content))",
    ]
)
_FIND: Final = f"""SELECT call.id, call.call_sid, ({_IS_PARTY}) FROM call LEFT JOIN tenant ON tenant.id = call.tenant_id
    WHERE call.id BETWEEN :first AND :last AND (:tenant IS NULL OR tenant.name = :tenant)
    AND call.call_sid NOT IN (SELECT call_sid FROM live_call) AND ({_IS_PARTY} OR {_IS_NAMED}) ORDER BY call.id"""  # noqa: S608 - our own words
_OTHERS: Final = f"""SELECT 1 FROM call LEFT JOIN tenant ON tenant.id = call.tenant_id
    WHERE tenant.name IS NOT ? AND ({_IS_PARTY}) LIMIT 1"""  # noqa: S608 - our own words
_SEGMENT: Final = "SELECT id, blob FROM journal_segment WHERE pbx = ? AND id > ? AND id < ? ORDER BY id LIMIT ?"
