"""What all CEL rows of some calls tell of each channel together, before its story begins; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from agent.calls.services import DIALLED_LEG
from agent.pbx.asterisk.cel import CelRow

# In this time one channel takes another's place in a bridge, or ends because its party hung up.
_AT_ONCE: Final = timedelta(seconds=0.2)
_COARSE: Final = timedelta(seconds=1)
# What Asterisk shows as the application of a leg that it rang by itself.
_ORIGINATED: Final = "AppDial2"
# Q.850 causes by which a caller is told that there is nobody free or no way.
_REFUSALS: Final = frozenset({17, 34, 42})
_MAX_CAUSE: Final = 255


@dataclass(slots=True)
class CelChannel:
    """What is known of one channel, of all its rows."""

    name: str
    linked: str
    is_local: bool
    is_root: bool
    is_dialled: bool
    exits: dict[str, int] = field(default_factory=dict)  # bridge to the row in which it left it, the last time
    dials: list[tuple[int, CelRow]] = field(default_factory=list)  # rows that show another Dial than the one before
    last_exit: int = -1  # the last row in which it left one
    hangup: CelRow | None = None
    hung_up_in: int = -1  # the row of its hangup
    is_up: bool = False
    # And as the story goes on:
    is_told: bool = False
    application: str = ""
    exten: str = ""
    number: str | None = None
    caller_name: str | None = None
    dial: CelRow | None = None  # the Dial, Queue or the like it is in
    in_queue: str | None = None
    bridge: str | None = None
    hears_music: bool = False
    dial_is_over: bool = False
    dialler: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the PBX ended it by telling that it is busy or has no way, which looks like a hangup of its own."""
        refused = self.hangup is not None and cause_of(self.hangup) in _REFUSALS
        return refused and not self.is_up and not self.is_dialled

    def ends_at_once(self, row: CelRow) -> bool:
        """Whether it ends together with what a row tells."""
        return self.hangup is not None and are_at_once(self.hangup, row)

    def surely_ends_at_once(self, row: CelRow) -> bool:
        """The same, not only as far as whole seconds tell."""
        return self.hangup is not None and are_at_once(self.hangup, row) and not is_coarse(self.hangup, row)

    def look_ahead(self, number: int, row: CelRow) -> None:
        """Take in one of its rows."""
        match row.event:
            case "HANGUP":
                self.hangup, self.hung_up_in = row, number
            case "ANSWER":
                self.is_up = True
            case "BRIDGE_EXIT":
                self.exits[text_of(row, "bridge_id")] = self.last_exit = number
            case _:
                pass
        if row.application == _ORIGINATED if self.is_root else row.application in DIALLED_LEG:
            self.is_dialled = True
        if row.application == "Dial" and (not self.dials or self.dials[-1][1].data != row.data):
            self.dials.append((number, row))


@dataclass(slots=True)
class CelCast:
    """The channels of some calls."""

    channels: dict[str, CelChannel] = field(default_factory=dict)
    by_name: dict[str, str] = field(default_factory=dict)
    handed_on: set[str] = field(default_factory=set)  # those that a transfer takes out of their call

    @classmethod
    def of(cls, rows: Sequence[CelRow]) -> "CelCast":
        """Every channel that began in these rows."""
        cast = cls()
        for number, row in enumerate(rows):
            if row.event == "CHAN_START":
                cast._begin(row)
            channel = cast.channels.get(row.channel)
            if channel is not None:
                channel.look_ahead(number, row)
                cast._hand_on(row)
        return cast

    def _begin(self, row: CelRow) -> None:
        is_root, is_local = row.linked == row.channel, row.name.startswith("Local/")
        channel = CelChannel(
            name=row.name,
            linked=row.linked,
            is_local=is_local,
            is_root=is_root,
            is_dialled=not is_root and not is_local,
        )
        self.channels.setdefault(row.channel, channel)
        if row.name:
            self.by_name[row.name] = row.channel

    def _hand_on(self, row: CelRow) -> None:
        match row.event:
            case "ATTENDEDTRANSFER":
                self.handed_on |= {row.channel, text_of(row, "channel2_uniqueid")}
            case "BLINDTRANSFER":
                self.handed_on.add(row.channel)
            case _:
                pass


def with_untold_hangup(rows: Sequence[CelRow]) -> set[str]:
    """Channels of which nobody can say who ended them: their last row names somebody who was gone long before."""
    ended: dict[str, CelRow] = {}
    untold = set()
    for row in rows:
        if row.event == "CHAN_END":
            ended[row.name] = row
        elif row.event == "HANGUP":
            source = ended.get(text_of(row, "hangupsource"))
            if source is not None and not are_at_once(source, row):
                untold.add(row.channel)
    return untold


def are_at_once(one: CelRow, other: CelRow) -> bool:
    """Whether two rows are about one moment, also where the PBX tells whole seconds only."""
    return abs(one.at - other.at) < (_AT_ONCE + _COARSE if is_coarse(one, other) else _AT_ONCE)


def is_coarse(*rows: CelRow) -> bool:
    """Whether the PBX tells whole seconds only."""
    return not any(row.at.microsecond for row in rows)


def text_of(row: CelRow, key: str) -> str:
    """A text in the row's extra, empty if it tells none."""
    value = row.extra.get(key, "")
    return value if isinstance(value, str) and value != "N/A" else ""


def cause_of(row: CelRow) -> int | None:
    """The Q.850 cause in a HANGUP row."""
    cause = row.extra.get("hangupcause")
    return cause if isinstance(cause, int) and 0 <= cause <= _MAX_CAUSE else None
