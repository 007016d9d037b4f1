"""Asterisk's CDRs, whatever wrote them: `cdr_csv`, `cdr_custom`, an export with a header, a table. No I/O.

`cdr_csv` writes 16 columns, then uniqueid and userfield, then peeraccount, linkedid and sequence, the later ones only
as configured, so the lines of a file that grew for years may differ.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from typing import Final, NamedTuple

from agent.pbx.asterisk.cdr_clock import CdrClock, began_at
from agent.pbx.text import name_of

_BASE: Final = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer",
    "end", "duration", "billsec", "disposition", "amaflags",
)  # fmt: skip
_NEW: Final = ("peeraccount", "linkedid", "sequence")
# What Asterisk's sample of cdr_custom.conf writes.
_SAMPLE: Final = (
    "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer", "end",
    "duration", "billsec", "disposition", "amaflags", "accountcode", "uniqueid", "userfield", "sequence",
)  # fmt: skip
# Our names, as in Asterisk's CDR() function, and others' names for them.
_OTHER_NAMES: Final = {"calldate": "start", "callerid": "clid", "destination": "dst", "source": "src"}
# Known, and of no use here.
_UNUSED: Final = frozenset({"amaflags", "peeraccount", "-", ""})

DISPOSITIONS: Final = frozenset({"ANSWERED", "NO ANSWER", "BUSY", "FAILED", "CONGESTION", "CANCEL"})
# Other spellings, and what CDR(disposition,u) writes.
_DISPOSITION_WORDS: Final = {word: word for word in DISPOSITIONS} | {
    "NOANSWER": "NO ANSWER", "0": "NO ANSWER", "1": "NO ANSWER", "2": "FAILED", "4": "BUSY", "8": "ANSWERED",
    "16": "CONGESTION",
}  # fmt: skip
_NOTHING: Final = frozenset({"\\N", "NULL"})  # as databases export it
_ESCAPED: Final = re.compile(r'\\([\\"])')  # within the name of a caller id
_LOOKED_AT: Final = 100  # lines after which a file whose columns are not told is given up


class CdrFault(ValueError):
    """A line is no CDR; the text says why."""


class UnknownColumns(ValueError):
    """Nobody can tell what the columns of a file are."""


class CdrRow(NamedTuple):
    """One CDR; texts that are not told are empty, moments are UTC."""

    start: datetime
    answer: datetime | None
    end: datetime
    billsec: float
    disposition: str  # one of DISPOSITIONS
    src: str
    dst: str
    dcontext: str
    clid: str
    channel: str
    dstchannel: str
    lastapp: str
    lastdata: str
    accountcode: str
    uniqueid: str
    linkedid: str
    sequence: str
    userfield: str
    did: str
    recordingfile: str
    cnum: str
    cnam: str
    guessed: str  # the times as they stand in the file, if they could be read in two ways

    @property
    def key(self) -> str:
        """What the CDRs of one call have in common; empty if the file tells no ids."""
        return self.linkedid or self.uniqueid


_TEXTS: Final = CdrRow._fields[5:-1]
COLUMNS: Final = frozenset({*_TEXTS, "start", "answer", "end", "duration", "billsec", "disposition"})
# In the order in which a line's values are picked.
_PICKED: Final = ("start", "answer", "end", "duration", "billsec", "disposition", *_TEXTS)


class Layout(NamedTuple):
    """Where the columns of a line are."""

    width: int
    pick: Callable[[Sequence[str]], tuple[str, ...]]


def layout_of(columns: Sequence[str]) -> Layout:
    """By the columns' names; names that mean nothing here are passed over."""
    names = [_plain(name) for name in columns]
    # What a line has not is picked from behind its end, where an empty text is put.
    places = [names.index(name) if name in names else len(names) for name in _PICKED]
    return Layout(len(names), itemgetter(*places))


def columns_of(text: str) -> tuple[str, ...]:
    """The columns as an option tells them, `start,answer,-,src`. Raises UnknownColumns, naming what is wrong."""
    columns = tuple(part.strip() for part in text.split(","))
    names = [_plain(name) for name in columns]
    strange = sorted({name for name in names if name not in COLUMNS | _UNUSED})
    if strange:
        raise UnknownColumns(
            f"{strange[0]!r} is no column; there are {', '.join(sorted(COLUMNS))}, and - for one to be passed over"
        )
    if not {"start", "disposition"} <= set(names):
        raise UnknownColumns("the columns start and disposition have to be among them")
    return columns


def header_of(fields: Sequence[str]) -> tuple[str, ...] | None:
    """The columns, if this is a line of their names."""
    names = [_plain(field) for field in fields]
    known = COLUMNS & set(names)
    return tuple(fields) if len(known) >= 4 and {"start", "disposition"} <= known else None


def _plain(name: str) -> str:
    name = name.strip().strip("\ufeff\"'`").lower()
    return _OTHER_NAMES.get(name, name)


def _usual_layout(fields: Sequence[str]) -> Layout | None:
    """That of `cdr_csv`, or of `cdr_custom` as its sample has it."""
    width = len(fields)
    for at_disposition, at_start, find in ((14, 9, _of_cdr_csv), (13, 8, _of_sample)):
        if 16 <= width <= 21 and fields[at_disposition] in _DISPOSITION_WORDS and fields[at_start][:1].isdecimal():
            return find(width, looks_like_id=began_at(fields[16]) is not None if width > 16 else False)
    return None


def _of_cdr_csv(width: int, *, looks_like_id: bool) -> Layout | None:
    one = ("uniqueid",) if looks_like_id else ("userfield",)
    more: dict[int, tuple[str, ...]] = {16: (), 17: one, 18: ("uniqueid", "userfield"), 19: _NEW, 20: (*one, *_NEW)}
    return layout_of((*_BASE, *more.get(width, ("uniqueid", "userfield", *_NEW))))


def _of_sample(width: int, *, looks_like_id: bool) -> Layout | None:
    return layout_of(_SAMPLE[:width]) if looks_like_id and width <= len(_SAMPLE) else None


class CdrReader:
    """Makes rows of lines, one file after its own layout and clock."""

    def __init__(self, zone: tzinfo, columns: Sequence[str] | None = None) -> None:
        self._clock = CdrClock(zone)
        self._fixed = layout_of(columns) if columns is not None else None
        self._usual: dict[tuple[int, bool, bool], Layout | None] = {}
        self._delimiter = ","
        self._line = _OneLine()
        self._csv = csv.reader(self._line)
        self._unread = 0  # lines without known columns so far; -1 once they are known
        self.has_header = False

    @property
    def knows_nothing(self) -> bool:
        """Whether it was given lines, and none of them told the columns."""
        return self._unread > 0

    def row(self, text: str) -> CdrRow | None:
        """The CDR of one record; None for a header or an empty line.

        Raises CdrFault for what is no CDR, UnknownColumns if the file's columns cannot be told.
        """
        self._line.text = text
        try:
            fields = next(self._csv)
        except StopIteration:
            return None
        except csv.Error as exc:
            raise CdrFault(str(exc)) from None
        if not fields:
            return None
        return self.row_of(fields)

    def row_of(self, fields: list[str]) -> CdrRow | None:
        """The same of fields."""
        if self._unread >= 0 and self._is_header(fields):
            return None
        layout = self._fixed
        if layout is None:
            layout = self._find(fields)
        elif layout.width != len(fields):
            raise CdrFault(f"it has {len(fields)} columns instead of {layout.width}")
        self._unread = -1
        fields.append("")
        return self._read(layout.pick(fields))

    def _is_header(self, fields: Sequence[str]) -> bool:
        if len(fields) == 1:
            fields = self._cut_otherwise(fields[0]) or fields
        columns = header_of(fields)
        if columns is None:
            return False
        self._fixed = self._fixed or layout_of(columns)
        self.has_header = True
        return True

    def _cut_otherwise(self, text: str) -> list[str] | None:
        """Some programs write semicolons or tabs."""
        for delimiter in (";", "\t"):
            fields = next(iter(csv.reader([text], delimiter=delimiter)), [])
            if header_of(fields) is not None:
                self._csv = csv.reader(self._line, delimiter=delimiter)
                return fields
        return None

    def _find(self, fields: Sequence[str]) -> Layout:
        width = len(fields)
        shape = (
            width,
            width > 14 and fields[14] in _DISPOSITION_WORDS,
            width > 16 and fields[16].partition(".")[0].isdecimal() and "." in fields[16],
        )
        layout = self._usual.get(shape)
        if layout is None:
            layout = _usual_layout(fields)
            if layout is None:
                if self._unread >= 0:
                    self._unread += 1
                    if self._unread > _LOOKED_AT:
                        raise UnknownColumns("its columns cannot be told")
                raise CdrFault(f"its {width} columns are not those of a CDR")
            self._usual[shape] = layout
        return layout

    def _read(self, values: tuple[str, ...]) -> CdrRow | None:
        start, answer, end, duration, billsec, word, *texts = values
        disposition = _DISPOSITION_WORDS.get(word) or _DISPOSITION_WORDS.get(word.strip().upper())
        if disposition is None:
            if word.strip().lower() == "disposition":
                return None  # a header again, where files were put one behind the other
            raise CdrFault(f"{word[:40]!r} is no disposition")
        billed = _seconds(billsec)
        try:
            times = self._clock.times(
                start=start,
                answer=answer,
                end=end,
                duration=_seconds(duration),
                billsec=billed,
                uniqueid=texts[_UNIQUEID],
            )
        except (ValueError, OverflowError) as exc:
            raise CdrFault(str(exc)) from None
        began, answered, ended, guessed = times
        if answered is None and disposition == "ANSWERED":
            answered = ended  # somebody picked up and the call was over within the same second
        if not _NOTHING.isdisjoint(texts):
            texts = ["" if text in _NOTHING else text for text in texts]
        return CdrRow._make((began, answered, ended, billed or 0.0, disposition, *texts, guessed))


_UNIQUEID: Final = _TEXTS.index("uniqueid")


class _OneLine:
    """A line at a time, so that one csv reader serves all records."""

    def __init__(self) -> None:
        self.text: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text, self.text = self.text, None
        if text is None:  # a quote is open at the end of the record
            raise StopIteration
        return text


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < 1e8 else None


def digest_of(row: CdrRow) -> str:
    """A name for a CDR that has none; equal lines have the same."""
    text = "\x1f".join([str(row.start), str(row.end), row.disposition, *row[5:-1]])
    return blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


@lru_cache(maxsize=16_384)
def caller_of(clid: str) -> tuple[str, str]:
    """Name and number of `"name" <number>`; names as people read them."""
    name, bracket, rest = clid.rpartition("<")
    if not bracket:
        return name_of(clid.strip().strip('"')), ""
    name = name.strip()
    if name.startswith('"') and name.endswith('"') and len(name) > 1:
        name = _ESCAPED.sub(r"\1", name[1:-1]) if "\\" in name else name[1:-1]
    return name_of(name), rest.rstrip("> ")
