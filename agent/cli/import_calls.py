"""`edge-agent import`: years of old CDR files into the local database, and so to the centre."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import CommandFailed
from agent.cli.output import AsJson, counted, is_terminal, note, printable, say, say_json
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.cli.cdr_files import Line, Reject
    from agent.cli.import_target import Target
    from agent.sources.cdr_scratch import Scratch
    from agent.store.merge import MergeResult
    from config.settings import AsteriskSettings, Settings

_LOOKED_AT: Final = 5000  # lines by whose ids the clock is checked
_QUARTER: Final = 900  # seconds; zones differ by so much at least


@dataclass(slots=True)
class FileResult:
    """What was found in one file."""

    file: str
    lines: int = 0
    rejected: int = 0
    rejects_file: str | None = None
    unfinished_line: bool = False  # left for the next time
    first_reason: str = field(default="", repr=False)
    off: Counter[int] = field(default_factory=Counter, repr=False)  # seconds by which the clock differs from the ids

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        told = asdict(self)
        del told["off"], told["first_reason"]
        return told


def import_files(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Master.csv, an export with a header, master.db.")
    ],
    *,
    pbx: Annotated[str | None, typer.Option(help="The PBX that wrote them; the only one if not given.")] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of the times in them: Europe/Istanbul; UTC with usegmtime=yes.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="For cdr_custom: start,answer,end,src,… as in CDR(), - for others."),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For lines that are no CDR; else rejected-… beside each file.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also calls of a time of which calls are no longer kept here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Take Asterisk's CDR files into the local database, and so to the centre.

    Understood are Master.csv with all its columns or the older ones, cdr_custom with --columns, any export with a
    line of column names (FreePBX's asteriskcdrdb.cdr), SQLite files of cdr_sqlite3_custom, each also as .gz. CDRs of
    one call become one call; calls that are known already gain what they lacked. Doing it again changes nothing, so
    it may be stopped at any time. It works while the agent runs, and without it.
    """
    from agent.cli.import_target import target
    from agent.pbx.asterisk.cdr import UnknownColumns, columns_of
    from agent.sources.cdr_scratch import Scratch

    settings = load_to_look(file)
    asterisk = _pbx(settings, pbx)
    try:
        named = columns_of(columns) if columns is not None else None
    except UnknownColumns as exc:
        raise CommandFailed(f"--columns: {exc}") from None
    reading = _Reading(settings.encoding_of(asterisk), _zone(time_zone or asterisk.time_zone), named, rejects, dry_run)
    with target(settings, dry_run=dry_run, again=again) as goal, Scratch.open() as scratch:
        results = reading.read(files, scratch)
        for result in results:
            _check_clock(result, is_sure=time_zone is not None or asterisk.time_zone is not None)
        done = _tell(settings, asterisk, scratch, goal)
    if as_json:
        say_json(
            {"pbx": asterisk.name, "dry_run": dry_run, "files": [each.as_dict() for each in results],
             "calls": done.as_dict()}
        )  # fmt: skip
        return
    for result in results:
        _say_file(result)
    _say_calls(done, dry_run=dry_run)


def _pbx(settings: "Settings", given: str | None) -> "AsteriskSettings":
    names = [each.name for each in settings.pbx]
    if given is None and len(names) == 1:
        return settings.pbx[0]
    for each in settings.pbx:
        if each.name == given:
            return each
    if given is None:
        raise CommandFailed(
            f"say with --pbx whose files these are: {', '.join(names) or 'the settings have no [[pbx]]'}"
        )
    raise CommandFailed(f"no PBX is named {given!r}; there is {', '.join(names) or 'none'}")


def _zone(name: str | None) -> tzinfo:
    """The zone of that name, or this machine's."""
    import os
    from datetime import UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    named = name or os.environ.get("TZ", "").removeprefix(":")
    if named:
        try:
            return ZoneInfo(named)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise CommandFailed(
                f"{named!r} is no time zone; write one of the IANA database, as Europe/Istanbul or UTC"
            ) from None
    with suppress(OSError, ValueError), Path("/etc/localtime").open("rb") as local:
        return ZoneInfo.from_file(local, key="localtime")
    return UTC


@dataclass(frozen=True, slots=True)
class _Reading:
    """How files are read."""

    encoding: str
    zone: tzinfo
    columns: tuple[str, ...] | None
    rejects: Path | None
    dry_run: bool

    def read(self, files: Sequence[Path], scratch: "Scratch") -> list[FileResult]:
        """Lay down every CDR of the files."""
        from agent.cli.cdr_files import CdrFile

        # What cannot be read is told before anything is done.
        total = sum(path.stat().st_size for path in files)
        results = []
        with _progress("reading", total) as advanced:
            for number, path in enumerate(files):
                result = FileResult(str(path))
                source = CdrFile(path, self.zone, self.encoding, self.columns, advanced)
                with _RejectFile(self._rejects_of(path), append=self.rejects is not None and number > 0) as rejected:
                    _lay_down(source.lines(), result, number, scratch, rejected)
                    result.rejects_file = rejected.written
                results.append(result)
        return results

    def _rejects_of(self, path: Path) -> Path | None:
        # Not Master.csv.rejected, which `import Master.csv*` would take for a CDR file the next time.
        return None if self.dry_run else self.rejects or path.with_name(f"rejected-{path.name}")


def _lay_down(
    lines: "Iterator[Line | Reject | None]", result: FileResult, number: int, scratch: "Scratch",
    rejected: "_RejectFile",
) -> None:  # fmt: skip
    from agent.cli.cdr_files import Reject
    from agent.pbx.asterisk.cdr_clock import began_at

    for line in lines:
        if line is None:
            result.unfinished_line = True
        elif isinstance(line, Reject):
            result.rejected += 1
            result.first_reason = result.first_reason or f"line {line.line}: {line.reason}"
            rejected.keep(line, result.file)
        else:
            result.lines += 1
            row = line.row
            scratch.add(row, file=number, number=line.number)
            if result.lines <= _LOOKED_AT and row.uniqueid == row.key and (at := began_at(row.uniqueid)) is not None:
                result.off[round((row.start - at) / timedelta(seconds=_QUARTER)) * _QUARTER] += 1


class _RejectFile:
    """Lines that are no CDR, as they stood, each after a remark why; made when there is one."""

    def __init__(self, path: Path | None, *, append: bool) -> None:
        self._path = path
        self._mode = "ab" if append else "wb"
        self._file: IO[bytes] | None = None
        self.written: str | None = None

    def __enter__(self) -> "_RejectFile":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            if kind is not None and self._path is not None and self._mode == "wb":
                self._path.unlink(missing_ok=True)  # nothing was imported

    def keep(self, reject: "Reject", of: str) -> None:
        """Set a line aside."""
        if self._path is None:
            return
        if self._file is None:
            try:
                self._file = self._path.open(self._mode)
                self._path.chmod(0o600)
            except OSError as exc:
                note(f"edge-agent: lines that are no CDR are not kept, since {self._path} cannot be written "
                     f"({exc.strerror}); use --rejects")  # fmt: skip
                self._path = None
                return
            self.written = str(self._path)
        self._file.write(f"# {of} line {reject.line}: {reject.reason}\n".encode() + reject.raw + b"\n")


def _check_clock(result: FileResult, *, is_sure: bool) -> None:
    """The ids of calls begin with the epoch, so they tell whether the zone is right."""
    if not result.off:
        return
    off, count = result.off.most_common(1)[0]
    if off == 0 or count < 3 or count * 5 < sum(result.off.values()) * 4:
        return
    hours = f"{abs(off) / 3600:g} h {'later' if off > 0 else 'earlier'}"
    told = f"{result.file}: by this time zone its calls began {hours} than their own ids say"
    if not is_sure:
        raise CommandFailed(f"{told}; give the zone of the PBX's clock with --time-zone (UTC if usegmtime=yes)")
    note(f"edge-agent: {told}")


def _tell(settings: "Settings", asterisk: "AsteriskSettings", scratch: "Scratch", goal: "Target") -> "MergeResult":
    from agent.cli.import_making import Maker, slices
    from agent.daemon import rules_of
    from agent.store.merge import MergeResult

    done = MergeResult()
    maker = Maker(settings.site, asterisk.name, rules_of(settings)[asterisk.name], settings.tenancy)
    with _progress("keeping", scratch.count) as advanced:
        for calls, lines in slices(maker, scratch.calls(), lines=scratch.count, at_once=goal.at_once):
            done.add(goal.tell(calls))
            advanced(lines)
    return done


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for whoever looks at a terminal."""
    if not is_terminal() or not total:
        yield lambda _: None
        return
    with typer.progressbar(length=total, label=what, file=typer.get_text_stream("stderr")) as bar:
        yield bar.update


def _say_file(result: FileResult) -> None:
    text = f"{printable(result.file)}: {counted(result.lines, 'CDR')}"
    if result.rejected:
        kept = f", kept in {printable(result.rejects_file)}" if result.rejects_file else ""
        text += f", {counted(result.rejected, 'line')} set aside ({printable(result.first_reason)}){kept}"
    if result.unfinished_line:
        text += ", an unfinished last line left for the next time"
    say(text)


def _say_calls(done: "MergeResult", *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    say(f"{counted(done.new, 'call')} {would}new, {done.amended} {would}amended, {done.unchanged} unchanged")
    if done.gone:
        why = "the centre confirmed calls of their time, which are no longer kept here; if it lacks these: --again"
        say(f"{counted(done.gone, 'call')} left out: {why}")
    if done.live:
        say(f"{counted(done.live, 'call')} left alone, still going on: import the file again later")
