"""What in Asterisk's own configuration keeps calls out of the files and tables that fill gaps, and how to mend it.

AMI tells only whether CDRs are on at all, so the files are read where the agent can. No PBX is less heard for any of
this: it is looked at only for the sources that are configured.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.pbx.asterisk.writers import left_out
from config.settings import AsteriskSettings, SourceKind, SourceSettings

_USUAL_DIRECTORY: Final = Path("/etc/asterisk")
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_UNTRACED_CALLS: Final = 100  # of one connection: then it is no chance that none bears a trace context
_MAX_INCLUDES: Final = 10  # within each other
_BLOCK_COMMENT: Final = re.compile(r";--(?!-).*?--;", re.DOTALL)
_INCLUDE: Final = re.compile(r'#(?:try)?include\s+["<]?([^">]+?)[">]?\s*', re.IGNORECASE)
_SECTION: Final = re.compile(r"\[([^\]]+)\]")
_TRUE: Final = frozenset({"yes", "true", "y", "t", "1", "on"})
# As docs/asterisk.md recommends: without these events CEL tells no call, and ALL would tell dialled PINs too.
_EVENTS: Final = (
    "CHAN_START,CHAN_END,ANSWER,HANGUP,APP_START,APP_END,BRIDGE_ENTER,BRIDGE_EXIT,PARK_START,PARK_END,BLINDTRANSFER,"
    "ATTENDEDTRANSFER,PICKUP,FORWARD,LINKEDID_END"
)
_APPLICATIONS: Final = (
    "dial,queue,followme,retrydial,page,park,confbridge,meetme,voicemail,stasis,audiosocket,busy,congestion,playback,"
    "background,read"
)
_NEEDED_EVENTS: Final = frozenset(_EVENTS.split(",")) - {"APP_END", "FORWARD"}
_NEEDED_APPLICATIONS: Final = ("dial", "queue")

Sections = Mapping[str, Mapping[str, str]]  # values by key, by section; all names in lower case

_CDR_KINDS: Final = frozenset({SourceKind.CDR_CSV, SourceKind.CDR_MARIADB, SourceKind.CDR_SQLITE})
_CEL_KINDS: Final = frozenset({SourceKind.CEL_CSV, SourceKind.CEL_MARIADB})
QUEUE_LOG_IS_OFF: Final = (
    "Asterisk writes no queue log; in logger.conf, section [general], write queue_log = yes, then `logger reload`"
)
CDRS_ARE_OFF: Final = "Asterisk writes no CDRs; in cdr.conf, section [general], write enable = yes"


def needs_cdrs(sources: Collection[SourceSettings]) -> bool:
    """Whether any of the sources is made of CDRs."""
    return any(source.kind in _CDR_KINDS for source in sources)


def findings_of(settings: AsteriskSettings) -> dict[str, str]:
    """Sentences with the line to add, by a word for each; reads files, so it may block."""
    if not settings.sources:
        return {}
    directory = settings.config_directory
    if directory is None:
        if settings.host not in _THIS_MACHINE:
            return {}
        directory = _USUAL_DIRECTORY
    elif not directory.is_dir():
        return {"config": f"config_directory {directory} cannot be read; mend it, or give the agent's user the right"}
    found: dict[str, str] = {}
    if needs_cdrs(settings.sources) and (cdr := read_sections(directory, "cdr.conf")) is not None:
        found |= cdr_findings(cdr, settings.sources)
    if any(source.kind in _CEL_KINDS for source in settings.sources):
        cel = read_sections(directory, "cel.conf")
        if cel is not None:
            found |= cel_findings(cel)
    if any(source.kind is SourceKind.QUEUE_LOG for source in settings.sources):
        logger = read_sections(directory, "logger.conf") or {}
        if not _is_true(logger.get("general", {}).get("queue_log", "yes")):
            found["queue_log"] = QUEUE_LOG_IS_OFF
    modules = _lines(directory, "modules.conf", 0)
    if modules is not None:
        found |= {f"module {name}": text for name, text in left_out(modules, settings.sources).items()}
    return found


def trace_findings(settings: AsteriskSettings, *, untraced_calls: int | None) -> dict[str, str]:
    """Whether no call bears the trace context that somebody took the trouble to write a setting for."""
    variable = settings.trace_variable
    is_wanted = variable and "trace_variable" in settings.model_fields_set
    if not is_wanted or untraced_calls is None or untraced_calls < _UNTRACED_CALLS:
        return {}
    return {
        "trace": (
            f"none of {untraced_calls} calls bore a traceparent in {variable}; in the dialplan write "
            f"same => n,Set({variable}=${{PJSIP_HEADER(read,traceparent)}}), or mend trace_variable"
        )
    }


def cdr_findings(cdr: Sections, sources: Collection[SourceSettings]) -> dict[str, str]:
    """What cdr.conf leaves out or risks."""
    general = cdr.get("general", {})
    found: dict[str, str] = {}
    if not _is_true(general.get("enable", "yes")):
        found["cdr"] = CDRS_ARE_OFF
        return found
    if not _is_true(general.get("unanswered", "no")):
        found["unanswered"] = (
            "calls that reach nobody leave no CDR; in cdr.conf, section [general], write unanswered = yes"
        )
    if _is_true(general.get("batch", "no")):
        found["batch"] = (
            "CDRs wait in Asterisk's memory and are lost when it dies; in cdr.conf, section [general], write batch = no"
        )
    if any(source.kind is SourceKind.CDR_CSV and not source.columns and _is_of_cdr_csv(source) for source in sources):
        csv = cdr.get("csv", {})
        for option, why in (
            ("loguniqueid", "Master.csv does not tell the calls' ids, so they cannot be joined with what was heard"),
            ("newcdrcolumns", "Master.csv does not tell which CDRs are of one call"),
        ):
            if not _is_true(csv.get(option, "no")):
                found[option] = f"{why}; in cdr.conf, section [csv], write {option} = yes"
    return found


def cel_findings(cel: Sections) -> dict[str, str]:
    """What cel.conf leaves out."""
    general = cel.get("general", {})
    if not _is_true(general.get("enable", "no")):
        return {"cel": "Asterisk writes no CEL; in cel.conf, section [general], write enable = yes"}
    found: dict[str, str] = {}
    events = _words(general.get("events", ""))
    if "ALL" not in events and not events >= _NEEDED_EVENTS:
        missing = ", ".join(sorted(_NEEDED_EVENTS - events)[:3])
        found["events"] = (
            f"CEL leaves out {missing} …, without which calls cannot be told; "
            f"in cel.conf, section [general], write events = {_EVENTS}"
        )
    applications = {word.lower() for word in _words(general.get("apps", ""))}
    if not applications >= set(_NEEDED_APPLICATIONS):  # "all" is no word that Asterisk knows here
        found["apps"] = (
            f"CEL does not tell of dialling and queues; in cel.conf, section [general], write apps = {_APPLICATIONS}"
        )
    return found


def _is_of_cdr_csv(source: SourceSettings) -> bool:
    """`cdr_custom` writes what its own mapping says."""
    return source.path is not None and source.path.parent.name != "cdr-custom"


def _is_true(word: str) -> bool:
    return word.strip().lower() in _TRUE


def _words(text: str) -> set[str]:
    return {word.strip().upper() for word in text.split(",")}


# Asterisk's own kind of file


def read_sections(directory: Path, name: str) -> Sections | None:
    """What a file and all that it includes say; None if it is not there or may not be read."""
    lines = _lines(directory, name, 0)
    return None if lines is None else sections_of(lines)


def sections_of(lines: list[str]) -> Sections:
    """Later lines go before earlier ones, as for most of Asterisk's modules."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in lines:
        if match := _SECTION.match(line):
            section = found.setdefault(match[1].strip().lower(), {})
            continue
        key, sign, value = line.partition("=")
        if sign:
            section[key.strip().lower()] = value.removeprefix(">").strip()
    return found


def _lines(directory: Path, name: str, depth: int) -> list[str] | None:
    try:
        with (directory / name).open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    return list(_with_included(directory, text, depth))


def _with_included(directory: Path, text: str, depth: int) -> Iterator[str]:
    for told in _BLOCK_COMMENT.sub("", text).splitlines():
        line = re.split(r"(?<!\\);", told, maxsplit=1)[0].strip()
        if match := _INCLUDE.fullmatch(line):
            if depth < _MAX_INCLUDES:
                for name in _included(directory, match[1]):
                    yield from _lines(directory, name, depth + 1) or ()
        elif line:
            yield line


def _included(directory: Path, pattern: str) -> list[str]:
    if not any(sign in pattern for sign in "*?["):
        return [pattern]
    relative = pattern.removeprefix(f"{directory}/")
    try:
        return sorted(str(path) for path in directory.glob(relative))
    except (ValueError, NotImplementedError, OSError):
        return []
