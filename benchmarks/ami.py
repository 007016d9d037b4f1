"""What hearing an Asterisk costs: python -m benchmarks.ami

The same bytes, captured from a real Asterisk and repeated with fresh ids, go once through everything between the
socket and the record (framing, fields, events, call model) and once through a loop that only splits them and makes a
dict of every header. The ratio of the two is what counts; the numbers beside it depend on the machine.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import process_time

from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.pbx.asterisk.protocol import AmiMessage, AmiSession
from config.settings import AsteriskSettings, TenancySettings, TenantRule

WIRE = Path(__file__).parents[1] / "tests" / "wire"
TARGET = 2.0
CHUNK_BYTES = 64 * 1024
NOW = datetime(2026, 11, 22, tzinfo=UTC)
# Every id and time in the captures begins so; a thousand seconds later they are those of other calls.
PREFIX = 1_795_366
SIGNED_ON = (
    b"Asterisk Call Manager/11.0.0\r\nResponse: Success\r\nActionID: edge-1\r\nMessage: Authentication accepted\r\n\r\n"
)
TENANCY = TenancySettings(
    rules=(
        TenantRule(tenant="acme", did_prefix="9021255510"),
        TenantRule(tenant="globex", did_prefix="9031244420"),
        TenantRule(tenant="acme", extension_range=(100, 199)),
        TenantRule(tenant="globex", extension_range=(200, 299)),
    )
)


def captured() -> list[bytes]:
    """The events of every captured kind of call that reach an agent with the recommended settings."""
    dropped = {*AsteriskSettings(name="main", username="edge").drop_events, "FullyBooted"}
    frames = []
    for path in sorted(WIRE.glob("*.ami")):
        if not path.with_suffix(".json").exists() or path.stem in {"killed", "live_calls"}:
            continue
        _, _, stream = path.read_bytes().partition(b"\n")
        messages = [AmiMessage(raw.lstrip(b"\r\n")) for raw in stream.split(b"\r\n\r\n") if raw.strip()]
        frames += [message.raw for message in messages if message.name and message.name not in dropped]
    return frames


def repeated(frames: list[bytes], times: int) -> bytes:
    """The stream of that many rounds, each with ids of its own."""
    once = b"".join(frame + b"\r\n\r\n" for frame in frames)
    return b"".join(once.replace(b"%d" % PREFIX, b"%d" % (PREFIX + 2 * number)) for number in range(times))


def split_and_dict(stream: bytes) -> int:
    """The yardstick: every event becomes a dict of all its headers, and that is all."""
    events, tail = 0, b""
    for start in range(0, len(stream), CHUNK_BYTES):
        *frames, tail = (tail + stream[start : start + CHUNK_BYTES]).split(b"\r\n\r\n")
        for frame in frames:
            fields = {}
            for line in frame.decode("utf-8", "replace").split("\r\n"):
                key, _, value = line.partition(": ")
                fields[key] = value
            events += bool(fields)
    return events


def pipeline(stream: bytes, *, tenancy: TenancySettings = TENANCY, tell: bool = True) -> int:
    """All that the agent does between the socket and the records it commits."""
    session = AmiSession(username="edge", secret="x", md5=False, event_classes=("all",))
    session.receive(SIGNED_ON)
    interpreter = AsteriskInterpreter()
    model = CallModel(site="bench", pbx="main", rules=CallRules(), assign=lambda facts: assign(tenancy, facts))
    events = 0
    for start in range(0, len(stream), CHUNK_BYTES):
        messages = session.receive(stream[start : start + CHUNK_BYTES])
        events += len(messages)
        for message in messages:
            event = interpreter.event_of(message, NOW)
            if event is not None:
                model.apply(event)
        model.take_opened(), model.take_changed()
        for call in model.take_ended():
            if tell:
                call.to_row()
    assert not model.live_calls()
    return events


def cpu_seconds(work: Callable[[bytes], int], stream: bytes, events: int) -> float:
    """The CPU time of one run."""
    started = process_time()
    done = work(stream)
    spent = process_time() - started
    assert done == events, f"{done} events instead of {events}"
    return spent


def main() -> int:
    """Print the comparison; exit code 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30, help="how often the captures are repeated in the stream")
    parser.add_argument("--tries", type=int, default=7, help="runs of each kind; the fastest counts")
    options = parser.parse_args()
    frames = captured()
    stream, events = repeated(frames, options.rounds), len(frames) * options.rounds
    unassigned = TenancySettings()
    works: dict[str, Callable[[bytes], int]] = {
        "split and dict of every header": split_and_dict,
        "the agent: bytes to live calls": lambda data: pipeline(data, tell=False),
        "the same, and records of ended calls": pipeline,
        "the same, no tenant rule ever matching": lambda data: pipeline(data, tenancy=unassigned),
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(options.tries):
        for name, work in works.items():
            best[name] = min(best[name], cpu_seconds(work, stream, events))
    yardstick = best["split and dict of every header"]
    print(f"{events} events of {len(stream) / events:.0f} bytes, {len(frames)} a round")
    for name, seconds in best.items():
        rate = events / seconds / 1000
        print(
            f"{name:40} {seconds / events * 1e6:6.2f} µs/event {rate:6.0f}k events/s  ratio {seconds / yardstick:.2f}"
        )
    ratio = best["the agent: bytes to live calls"] / yardstick
    print(f"ratio {ratio:.2f}, target {TARGET:g} or less")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
