"""One Asterisk's line: how it comes up, what is heard on it, and what becomes of it."""

import asyncio
import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.calls.events import CallEvent, ChannelOpened, LineLost, SnapshotTaken
from agent.pbx.asterisk import connector as connecting
from agent.pbx.asterisk.connector import AsteriskConnector
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN
from agent.pbx.feed import LINE_LOST, Blind, BlindReason, LineState
from config.settings import SourceKind, SourceSettings
from sync.backoff import Backoff
from tests.integration.pbx.loopback import SECRET, Ear, Pbx, connected, settings, until

NEWCHANNEL = b"Event: Newchannel\r\nChannel: PJSIP/101-00000001\r\nUniqueid: 1.1\r\nLinkedid: 1.1"
HANGUP = b"Event: Hangup\r\nChannel: PJSIP/101-00000001\r\nUniqueid: 1.1\r\nLinkedid: 1.1\r\nCause: 16"


@pytest.mark.parametrize("login", ["md5", "plain"])
async def test_a_line_comes_up_lists_the_channels_and_hears_events(login: str) -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port, login=login), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await line.list_channels("1.7")
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)
        line.send_raw(NEWCHANNEL + b"\r\n\r\n")

        await until(lambda: NEWCHANNEL in ear.frames)

        assert connector.status.state is LineState.CONNECTED
        assert connector.status.reason is None
        assert connector.status.version == "AMI 11.0.0"
        assert connector.status.last_heard_at is not None
        assert connector.status.warnings == {}
        assert abs(connector.status.clock_offset_seconds or 9) < 5
    found, snapshot, opened = ear.events[:3]
    assert isinstance(found, ChannelOpened)
    assert found.age_seconds == 9
    assert isinstance(snapshot, SnapshotTaken)
    assert snapshot.channels == {"1.7"}
    assert isinstance(opened, ChannelOpened)


async def test_asterisk_tells_its_own_version_and_whether_it_writes_cdrs() -> None:
    source = SourceSettings(kind=SourceKind.CDR_CSV, path=Path("Master.csv"))
    async with Pbx() as pbx, connected(settings(pbx.port, sources=(source,)), Ear()) as connector:
        line = await pbx.called()
        await line.log_in()
        told = ("AsteriskVersion: 22.10.1~dfsg+~cs6.15.60671435-1", "CoreCDRenabled: No")
        line.answer(await line.asked_for("CoreSettings"), "Success", *told)
        await until(lambda: "cdr" in connector.status.warnings)

        assert connector.status.version == "Asterisk 22.10.1"
        assert "in cdr.conf, section [general], write enable = yes" in connector.status.warnings["cdr"]


@pytest.mark.parametrize(("seconds", "told"), [(-60.0, "60.0 s behind"), (3.5, "s ahead of"), (0.5, None)])
async def test_a_clock_that_is_off_is_a_warning(seconds: float, told: str | None) -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await line.list_channels(clock_ahead=seconds)
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)

        assert abs((connector.status.clock_offset_seconds or 0) - seconds) < 0.3
        assert connector.status.warnings.keys() == (set() if told is None else {"clock"})
        assert told is None or told in connector.status.warnings["clock"]


async def test_events_cut_anywhere_are_heard_whole() -> None:
    ear = Ear()
    stream = NEWCHANNEL + b"\r\n\r\n\r\n" + HANGUP + b"\r\n\r\n"
    async with Pbx() as pbx, connected(settings(pbx.port), ear):
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)
        heard = len(ear.frames)
        for cut in range(0, len(stream), 7):
            line.send_raw(stream[cut : cut + 7])
            await asyncio.sleep(0)

        await until(lambda: len(ear.frames) >= heard + 2)

        assert ear.frames[heard:] == [NEWCHANNEL, HANGUP]


async def test_what_came_before_the_mark_of_a_list_is_heard_before_it() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear):
        line = await pbx.called()
        await line.log_in()
        listing, ping = await line.asked_for("CoreShowChannels"), await line.asked_for("Ping")
        line.answer(listing)
        line.send("Event: CoreShowChannelsComplete", "EventList: Complete")
        line.pong(ping)
        line.send_raw(NEWCHANNEL + b"\r\n\r\n")  # in the same read as the answer

        await until(lambda: SNAPSHOT_TAKEN in ear.frames and NEWCHANNEL in ear.frames)

        assert ear.frames.index(NEWCHANNEL) < ear.frames.index(SNAPSHOT_TAKEN)
        (snapshot,) = [event for event in ear.events if isinstance(event, SnapshotTaken)]
        assert "1.1" in snapshot.channels


async def test_a_wrong_secret_is_a_refusal_told_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    with caplog.at_level(logging.DEBUG):
        async with Pbx() as pbx, connected(settings(pbx.port, login="plain"), ear) as connector:
            for _ in range(3):
                line = await pbx.called()
                line.greet()
                line.answer(await line.asked(), "Error", "Message: Authentication failed")
                line.hang_up()

            await until(lambda: connector.status.state is LineState.REFUSED)

            assert connector.status.reason is not None
            assert "'edge' (Authentication failed); check username, secret and permit" in connector.status.reason
            assert connector.status.reconnects == 0
    assert ear.frames == []
    assert SECRET not in caplog.text
    assert len([record for record in caplog.records if record.name == connecting.log.name]) == 1  # not again and again


async def test_a_pbx_that_is_stopping_is_lost_and_not_refusing() -> None:
    async with Pbx() as pbx, connected(settings(pbx.port), Ear()) as connector:
        line = await pbx.called()
        line.greet()
        line.answer(await line.asked(), "Error", "Message: Asterisk is shutting down")

        await until(lambda: connector.status.state is LineState.LOST)

        assert connector.status.reason == "the PBX is shutting down"


async def test_a_port_where_nobody_listens_is_told_as_such() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with connected(settings(taken.getsockname()[1]), Ear()) as connector:
            await until(lambda: connector.status.state is LineState.LOST)

            assert connector.status.reason is not None
            assert connector.status.reason.startswith(f"no connection to {connector.status.address}: ")
            assert "refused" in connector.status.reason


async def test_another_protocol_is_told_as_such() -> None:
    async with Pbx() as pbx, connected(settings(pbx.port), Ear()) as connector:
        (await pbx.called()).send_raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")

        await until(lambda: connector.status.state is LineState.LOST)

        assert connector.status.reason is not None
        assert "no Asterisk manager interface" in connector.status.reason


async def test_a_pbx_that_says_nothing_is_given_up() -> None:
    async with Pbx() as pbx, connected(settings(pbx.port, connect_timeout_seconds=0.05), Ear()) as connector:
        line = await pbx.called()
        await line.wait_until_left()

        await until(lambda: connector.status.state is LineState.LOST)

        assert connector.status.reason is not None
        assert "no log-in" in connector.status.reason


async def test_a_lost_line_is_marked_once_and_made_again() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await until(lambda: connector.status.state is LineState.CONNECTED)
        line.hang_up()
        again = await pbx.called()

        told = (connector.status.state, connector.status.reason)
        assert told == (LineState.LOST, "the PBX closed the connection")
        assert ear.frames.count(LINE_LOST) == 1
        await again.log_in()
        await until(lambda: connector.status.state is LineState.CONNECTED)
        await again.list_channels()
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)

        assert connector.status.reconnects == 1
        assert connector.status.reason is None
        assert ear.frames.count(LINE_LOST) == 1
    assert ear.frames.count(LINE_LOST) == 2  # the agent's own stop leaves the PBX unheard, too
    assert isinstance(ear.events[-1], LineLost)
    assert ear.blind == [
        Blind(BlindReason.LINE_LOST, "the PBX closed the connection"),
        Blind(BlindReason.AGENT_STOPPED, "the agent was stopped"),
    ]


async def test_a_pbx_that_said_goodbye_was_stopped_or_restarted() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await until(lambda: connector.status.state is LineState.CONNECTED)
        line.send("Event: Shutdown", "Shutdown: Cleanly", "Restart: True")
        line.hang_up()
        await pbx.called()

        assert [blind.reason for blind in ear.blind] == [BlindReason.PBX_RESTARTED]


async def test_a_line_that_breaks_is_lost_too() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await until(lambda: connector.status.state is LineState.CONNECTED)
        line.break_off()

        await pbx.called()

        assert ear.frames.count(LINE_LOST) == 1


async def test_a_line_that_was_never_up_is_no_loss_of_words() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear):
        for _ in range(3):
            (await pbx.called()).break_off()

    assert ear.frames == []


async def test_the_event_cut_by_the_end_of_the_line_is_not_joined_to_the_next_line_s() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear):
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        line.send_raw(NEWCHANNEL[:-5])
        line.hang_up()
        again = await pbx.called()
        await again.log_in()
        again.send_raw(HANGUP + b"\r\n\r\n")

        await until(lambda: HANGUP in ear.frames)

    assert not any(frame.startswith(b"Event: Newchannel") for frame in ear.frames)


async def test_a_half_open_line_is_noticed_by_its_silence() -> None:
    ear = Ear()
    hurried = {"ping_seconds": 0.05, "pong_timeout_seconds": 0.05}
    async with Pbx() as pbx, connected(settings(pbx.port, **hurried), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        ping = await line.asked_for("Ping")  # and from here on silence

        await pbx.called()

        assert ping.get("action") == "Ping"
        assert connector.status.reason == "the PBX no longer answers, though the connection is open"
        assert ear.frames.count(LINE_LOST) == 1


async def test_a_quiet_pbx_that_answers_pings_stays() -> None:
    hurried = {"ping_seconds": 0.02, "pong_timeout_seconds": 5.0}
    async with Pbx() as pbx, connected(settings(pbx.port, **hurried), Ear()) as connector:
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        for _ in range(5):
            line.pong(await line.asked_for("Ping"))

        assert connector.status.state is LineState.CONNECTED
        assert connector.status.reconnects == 0


async def test_the_wait_grows_while_nothing_works_and_is_short_again_after_success() -> None:
    now = 0.0
    backoff = Backoff(initial=0.01, maximum=0.04, random=lambda: 0.0, clock=lambda: now)
    async with Pbx() as pbx, connected(settings(pbx.port), Ear(), backoff=backoff) as connector:
        for _ in range(4):
            (await pbx.called()).break_off()
        line = await pbx.called()
        await line.log_in()
        await until(lambda: connector.status.state is LineState.CONNECTED)
        now = 60.0
        line.hang_up()
        await until(lambda: connector.status.state is LineState.LOST)

        assert backoff.next_delay() == 0.02  # the one after the first, which the connector has taken


async def test_a_pbx_that_boots_late_is_asked_for_its_channels_then() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        line.greet()
        challenge = await line.asked()
        line.answer(challenge, "Success", "Challenge: 1")
        line.answer(await line.asked(), "Success", "Message: Authentication accepted")
        await until(lambda: connector.status.state is LineState.CONNECTED)
        filters = [await line.asked() for _ in settings(1).drop_events]
        assert {action.get("action") for action in filters} == {"Filter"}
        line.send("Event: FullyBooted", "Status: Fully Booted")

        action = await line.asked()

        assert action.get("action") == "CoreShowChannels"


async def test_a_user_who_may_not_hear_of_booting_gets_the_list_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "_BOOT_PATIENCE_SECONDS", 0.02)
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port, login="plain"), ear):
        line = await pbx.called()
        line.greet()
        line.answer(await line.asked(), "Success", "Message: Authentication accepted")

        await line.list_channels()

        await until(lambda: SNAPSHOT_TAKEN in ear.frames)


async def test_a_user_who_may_not_list_channels_is_told_what_to_add() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        line.answer(await line.asked_for("CoreShowChannels"), "Error", "Message: Permission denied")
        line.pong(await line.asked_for("Ping"))

        await until(lambda: SNAPSHOT_TAKEN in ear.frames)

        assert connector.status.state is LineState.CONNECTED
        assert "write=reporting" in connector.status.warnings["snapshot"]
    assert not any(isinstance(event, SnapshotTaken) for event in ear.events)  # so that no call is taken for gone


async def test_channels_are_listed_again_now_and_then() -> None:
    ear = Ear()
    often = {"ping_seconds": 0.01, "snapshot_seconds": 0.02}
    async with Pbx() as pbx, connected(settings(pbx.port, **often), ear):
        line = await pbx.called()
        await line.log_in()
        for _ in range(3):
            await line.list_channels("1.1")

        await until(lambda: len([event for event in ear.events if isinstance(event, SnapshotTaken)]) == 3)


async def test_a_full_store_stops_the_reading_and_loses_nothing() -> None:
    ear = Ear()
    total = 40_000
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)
        ear.is_full()
        before = len(ear.frames)
        for number in range(total):
            line.send("Event: UserEvent", f"Number: {number}", "Filler: " + "x" * 200)
        await until(lambda: len(ear.frames) > before)
        stopped_at = len(ear.frames)
        for _ in range(20):
            await asyncio.sleep(0)

        assert len(ear.frames) == stopped_at < before + total
        ear.is_empty_again()
        await until(lambda: len(ear.frames) == before + total)

        assert connector.status.state is LineState.CONNECTED
        numbers = [frame.split(b"\r\n")[1] for frame in ear.frames[before:]]
        assert numbers == [b"Number: %d" % number for number in range(total)]


async def test_a_pbx_is_not_taken_for_dead_while_it_is_the_agent_that_does_not_read() -> None:
    ear = Ear()
    hurried = {"ping_seconds": 0.01, "pong_timeout_seconds": 0.01}
    async with Pbx() as pbx, connected(settings(pbx.port, **hurried), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)
        answering = asyncio.create_task(line.keep_answering())
        ear.is_full()
        heard = len(ear.frames)
        line.send_raw(NEWCHANNEL + b"\r\n\r\n")
        await until(lambda: len(ear.frames) > heard)
        loop = asyncio.get_running_loop()
        later = loop.time() + 0.1  # many times what a line is given

        await until(lambda: loop.time() > later)

        assert connector.status.state is LineState.CONNECTED
        ear.is_empty_again()
        line.send_raw(HANGUP + b"\r\n\r\n")
        await until(lambda: HANGUP in ear.frames)
        assert connector.status.reconnects == 0
        answering.cancel()


async def test_a_frame_that_is_too_long_is_counted() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear) as connector:
        line = await pbx.called()
        await line.log_in()
        line.send("Event: Huge", "Data: " + "x" * 400_000)
        line.send_raw(HANGUP + b"\r\n\r\n")

        await until(lambda: HANGUP in ear.frames)

        assert connector.status.oversized_frames == 1
        assert connector.status.warnings["oversized"].startswith("1 messages longer than 256 KiB were left out")


@pytest.mark.parametrize(
    "changes", [{"host": "pbx..lan"}, {"host": "p" * 64}, {"tls": True, "tls_server_name": ".pbx"}]
)
async def test_a_name_that_no_host_can_have_is_told_and_ends_nothing(changes: dict[str, Any]) -> None:
    async with Pbx() as pbx:
        unchecked = settings(pbx.port, connect_timeout_seconds=2).model_copy(update=changes)
        async with connected(unchecked, Ear()) as connector:
            await until(lambda: connector.status.state is LineState.LOST)

    assert connector.status.reason is not None
    assert "check host and tls_server_name" in connector.status.reason


class DeafEar(Ear):
    """Has a bug that shows with some frame, or when there is room again."""

    def __init__(self, at: bytes) -> None:
        super().__init__()
        self._at = at

    def heard(self, frame: bytes, event: CallEvent | None, at: datetime, *, blind: Blind | None = None) -> None:
        if frame == self._at:
            raise LookupError("Ayşe Yılmaz")
        super().heard(frame, event, at, blind=blind)

    async def wait_for_room(self) -> None:
        await super().wait_for_room()
        raise LookupError("Ayşe Yılmaz")


@pytest.mark.parametrize("at", [HANGUP, SNAPSHOT_TAKEN, b"room"])
async def test_a_bug_met_while_hearing_ends_the_connector_and_shows_in_no_warning(
    at: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ear = DeafEar(at)
    async with Pbx() as pbx:
        connector = AsteriskConnector(settings(pbx.port), feed=ear, backoff=Backoff(initial=0.01, maximum=0.01))
        running = asyncio.create_task(connector.run())
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        if at == b"room":
            await until(lambda: SNAPSHOT_TAKEN in ear.frames)
            ear.is_full()
        line.send_raw(HANGUP + b"\r\n\r\n")
        if at == b"room":
            await until(lambda: HANGUP in ear.frames)
            ear.is_empty_again()

        async with asyncio.timeout(10):
            with pytest.raises(ExceptionGroup) as raised:
                await running

    assert raised.group_contains(LookupError)
    assert not any("Ayşe" in record.getMessage() for record in caplog.records if record.name == connecting.log.name)


async def test_the_list_of_channels_comes_in_time_whatever_the_wall_clock_does() -> None:
    ear = Ear()
    backwards = iter(datetime(2026, 11, 22, tzinfo=UTC) - timedelta(hours=number) for number in range(10**6))
    async with Pbx() as pbx:
        connector = AsteriskConnector(
            settings(pbx.port).model_copy(update={"ping_seconds": 0.01, "snapshot_seconds": 0.02}),
            feed=ear, backoff=Backoff(initial=0.01, maximum=0.01), now=lambda: next(backwards),
        )  # fmt: skip
        running = asyncio.create_task(connector.run())
        line = await pbx.called()
        await line.log_in()
        for _ in range(3):
            await line.list_channels("1.1")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_clock_that_is_set_is_told_before_the_first_word_that_is_timed_by_it() -> None:
    ear = Ear()
    async with Pbx() as pbx, connected(settings(pbx.port), ear):
        line = await pbx.called()
        await line.log_in()
        now = time.time()
        for number, stamp in enumerate((now, now + 3600, now + 3601), start=1):
            frame = HANGUP + f"\r\nTimestamp: {stamp:.6f}\r\nNumber: {number}".encode()
            line.send_raw(frame + b"\r\n\r\n")
            await until(partial(_has_heard, ear, frame))

        assert [round(step / 10) for step in ear.clock_steps] == [360]


def _has_heard(ear: Ear, frame: bytes) -> bool:
    return frame in ear.frames


async def test_a_connector_that_is_stopped_leaves_the_line() -> None:
    async with Pbx() as pbx:
        async with connected(settings(pbx.port), Ear()):
            line = await pbx.called()
            await line.log_in()

        await line.wait_until_left()


async def test_nothing_told_of_a_connector_holds_the_secret() -> None:
    async with Pbx() as pbx, connected(settings(pbx.port), Ear()) as connector:
        line = await pbx.called()
        await line.log_in()
        await until(lambda: connector.status.state is LineState.CONNECTED)

        assert SECRET not in repr(connector) + repr(connector.status) + repr(settings(pbx.port))


async def test_an_agent_that_is_stopped_at_the_moment_its_pbx_stops_is_stopped() -> None:
    """As when a machine goes down: an error in a task group goes before a cancellation that comes with it."""
    ear = Ear()
    async with Pbx() as pbx:
        connector = AsteriskConnector(settings(pbx.port), feed=ear, backoff=Backoff(initial=0.01, maximum=0.02))
        running = asyncio.create_task(connector.run())
        line = await pbx.called()
        await line.log_in()
        await line.list_channels()
        await until(lambda: SNAPSHOT_TAKEN in ear.frames)
        (watch,) = [task for task in asyncio.all_tasks() if task.get_name() == "pbx-main-watch"]
        line.hang_up()
        while not watch.cancelling():  # noqa: ASYNC110 - it is this very moment that counts
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5)
    assert done
    assert running.cancelled()
    assert ear.frames[-1] == LINE_LOST
