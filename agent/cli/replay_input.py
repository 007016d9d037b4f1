"""What can be replayed: recordings of ours, and captured AMI sessions with or without an index of arrival times."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final

from agent.calls.rules import CallRules
from agent.cli.faults import CommandFailed
from agent.cli.output import counted
from agent.pbx.arrivals import Arrivals, IndexUnreadable, read_arrivals
from agent.pbx.asterisk.capture import CaptureReader, Clock, NotAmi, Survey, survey
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.pbx.feed import Interpreter
from agent.pbx.text import DEFAULT_ENCODING
from agent.store.history import timed
from agent.store.recording import MAGIC, RecordingReader, RecordingUnreadable
from agent.tracking.replay import Heard
from config.settings import AsteriskSettings, Settings, TenancySettings

INDEX_ENDINGS: Final = (".times", ".index", ".idx")
DEFAULT_SITE: Final = "replay"
DEFAULT_PBX: Final = "main"
INTERPRETERS: Final = {"asterisk": AsteriskInterpreter}
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says over whatever the file and the settings say; None: nothing."""

    site: str | None = None
    pbx: str | None = None
    trunks: tuple[str, ...] = ()
    country: str | None = None
    times: Path | None = None


@dataclass(slots=True)
class Source:
    """A file opened to be replayed. `notes` are complete once all of `heard` has been read."""

    kind: str  # recording, capture
    site: str
    tenancy: TenancySettings
    rules: dict[str, CallRules]  # by PBX
    heard: Iterator[Heard]
    clock: Clock | None = None  # of a capture
    interpreters: dict[str, Interpreter] = field(default_factory=dict)  # by PBX, as rules
    notes: list[str] = field(default_factory=list)

    @property
    def lengths_known(self) -> bool:
        """Whether it can be said how long a call lasted."""
        return self.clock is None or self.clock.tells_lengths


@contextmanager
def opened(file: Path, options: Options, settings: Callable[[], Settings | None]) -> Iterator[Source]:
    """Open a recording, or a capture by these settings. Raises CommandFailed for anything else."""
    with _plain_file(file) as stream:
        head = stream.peek(len(MAGIC))[: len(MAGIC)]
        if not head:
            raise CommandFailed(f"{file} is empty; there is nothing to replay")
        source = _recording(file, stream, options) if head == MAGIC else _capture(file, stream, options, settings())
        source.rules = {name: _with_options(rules, options) for name, rules in source.rules.items()}
        yield source


@contextmanager
def _plain_file(file: Path) -> Iterator["BufferedReader[FileIO]"]:
    # Without waiting: a pipe that nobody writes to would hold the command for ever.
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise CommandFailed(f"{file} is {'a directory' if stat.S_ISDIR(mode) else 'no plain file'}; name a file")
    with BufferedReader(FileIO(handle), buffer_size=_READ_BYTES) as stream:
        yield stream


def _with_options(rules: CallRules, options: Options) -> CallRules:
    if options.trunks:
        rules = replace(rules, trunks=options.trunks)
    if options.country is not None:
        rules = replace(rules, numbers=replace(rules.numbers, country=options.country))
    return rules


# Recordings


def _recording(file: Path, stream: "BufferedReader[FileIO]", options: Options) -> Source:
    if options.times is not None:
        raise CommandFailed(f"{file} is a recording, which knows its times; leave --times out")
    try:
        reader = RecordingReader(stream)
    except RecordingUnreadable as exc:
        raise CommandFailed(f"{file} cannot be replayed: {exc}") from exc
    header = reader.header
    names = [pbx.name for pbx in header.pbx]
    if options.pbx is not None and options.pbx not in names:
        raise CommandFailed(f"{file} holds no PBX {options.pbx!r}; it holds {', '.join(names) or 'none'}")
    source = Source("recording", options.site or header.site, header.tenancy, {}, iter(()))
    for pbx in header.pbx:
        if pbx.kind not in INTERPRETERS:
            source.notes.append(f"PBX {pbx.name} is of kind {pbx.kind}, which this version does not know: left out")
        elif options.pbx in {None, pbx.name}:
            source.rules[pbx.name] = pbx.call_rules()
            source.interpreters[pbx.name] = INTERPRETERS[pbx.kind](pbx.encoding or DEFAULT_ENCODING)
    source.heard = _recorded(reader, source)
    return source


def _recorded(reader: RecordingReader, source: Source) -> Iterator[Heard]:
    for segment in reader.segments():
        if segment.pbx in source.rules:
            for frame, at in timed(segment):
                yield Heard(segment.pbx, frame.data, at)
    if reader.was_cut:
        source.notes.append("the recording is cut off; it was read up to the cut")
    if reader.damaged:
        source.notes.append(f"{counted(reader.damaged, 'piece')} of the recording damaged and left out")


# Captures


def _capture(file: Path, stream: "BufferedReader[FileIO]", options: Options, settings: Settings | None) -> Source:
    from agent.daemon import interpreters_of, rules_of

    settings = _settings_of(options, settings)
    (pbx,) = settings.pbx
    status = os.fstat(stream.fileno())
    modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
    index = _index(file, options, capture_bytes=status.st_size)
    try:
        found = survey(_pieces(stream))
    except NotAmi as exc:
        raise CommandFailed(f"{file} cannot be replayed: {exc}") from exc
    stream.seek(0)
    if index is not None:
        found = Survey(Clock.INDEX, datetime.fromtimestamp(index.moments[0], UTC))
    reader = CaptureReader(found.clock, found.first_at or modified_at)
    source = Source("capture", settings.site, settings.tenancy, rules_of(settings), iter(()), found.clock)
    source.interpreters[pbx.name] = interpreters_of(settings)(pbx.name)
    pieces = index.pieces(stream) if index is not None else ((None, data) for data in _pieces(stream))
    source.heard = _captured(reader, pieces, source, pbx.name)
    return source


def _captured(
    reader: CaptureReader, pieces: Iterator[tuple[datetime | None, bytes]], source: Source, pbx: str
) -> Iterator[Heard]:
    for frame, at in reader.read(pieces):
        yield Heard(pbx, frame, at)
    source.notes += _capture_notes(reader)


def _capture_notes(reader: CaptureReader) -> Iterator[str]:
    if not reader.frames:
        yield "the capture holds no whole message"
    if reader.clock is Clock.CHANNELS:
        yield (
            "the capture tells no times (manager.conf: timestampevents = yes) and there is no index beside it: "
            "calls begin in the second in which their channel was made, how long they lasted is not known"
        )
    elif reader.clock is Clock.FILE:
        yield (
            "the capture tells no times (manager.conf: timestampevents = yes) and there is no index beside it: "
            "every time is that of the file, how long calls lasted is not known"
        )
    if not reader.logins:
        yield "the capture does not begin with the banner: what was said before is missing"
    if reader.lost_lines:
        yield f"{counted(reader.lost_lines, 'lost line')}: the PBX was logged in to again in mid-stream"
    if reader.oversized:
        yield f"{counted(reader.oversized, 'message')} longer than any honest one left out"
    if reader.ends_in_a_frame:
        yield "the capture ends in the middle of a message"


def _settings_of(options: Options, settings: Settings | None) -> Settings:
    """The settings of a capture, which tells none: site, tenancy and the one PBX whose it is."""
    base = settings or Settings(site=DEFAULT_SITE)
    known = {pbx.name: pbx for pbx in base.pbx}
    if options.pbx is None and len(known) > 1:
        raise CommandFailed(f"the settings know several PBXes; say which this is with --pbx: {', '.join(known)}")
    name = options.pbx or next(iter(known), DEFAULT_PBX)
    pbx = known.get(name) or AsteriskSettings(name=name, username="replay")
    if options.country is not None:
        pbx = pbx.model_copy(update={"country": options.country})
    return base.model_copy(update={"site": options.site or base.site, "pbx": (pbx,)})


def _index(file: Path, options: Options, *, capture_bytes: int) -> Arrivals | None:
    """The index named by --times, else one that lies beside the capture."""
    beside = [file.with_name(file.name + ending) for ending in INDEX_ENDINGS]
    beside += [file.with_suffix(ending) for ending in INDEX_ENDINGS if file.suffix and file.suffix != ending]
    index = options.times or next((path for path in beside if path.is_file()), None)
    if index is None:
        return None
    try:
        with _plain_file(index) as stream:
            return read_arrivals(stream, capture_bytes=capture_bytes)
    except IndexUnreadable as exc:
        raise CommandFailed(
            f"{index} cannot be used as an index: {exc}; it holds a line for each piece: 1448 1763812800.104211"
        ) from exc


def _pieces(stream: "BufferedReader[FileIO]") -> Iterator[bytes]:
    while data := stream.read(_READ_BYTES):
        yield data


def settings_beside(file: Path | None, default: Path) -> Settings | None:
    """The settings that are named, else those of this machine if it has any this user may read."""
    from agent.cli.settings import load_to_look
    from config.errors import ConfigError

    if file is not None:
        return load_to_look(file)
    if not os.access(default, os.R_OK):
        return None
    with suppress(ConfigError):  # of no concern here: nobody named them
        return load_to_look(default)
    return None
