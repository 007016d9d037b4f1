"""How promptly the machine and the exchange answer while scenarios are played.

People's moments are taken here, the exchange's own there: on a busy machine both come late, and a moment is known no
better than that. What is told may be off by as much, and by no more.
"""

import asyncio
import secrets
import time
from datetime import datetime, timedelta
from itertools import count

from tests.pbx.stage.exchange import Exchange, new_tag
from tests.pbx.stage.phone import now
from tests.pbx.stage.sip import Message

BEAT_SECONDS = 0.05
# A delay shows in a beat just before or after what it delayed.
_MARGIN = timedelta(seconds=0.5)


class Pulse:
    """Asks the exchange again and again whether it is there, and keeps how long each answer took."""

    def __init__(self) -> None:
        self._beats: list[tuple[datetime, float]] = []

    async def beat(self, exchange: Exchange) -> None:
        """For ever."""
        for number in count():
            asked_at, asked = now(), time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
            await exchange.ask(_options(exchange, number))
            self._beats.append((asked_at, time.monotonic() - asked - BEAT_SECONDS))

    def slowest(self, begin: datetime, end: datetime) -> float:
        """The longest that an answer took at that time, in seconds."""
        around = (took for at, took in self._beats if begin - _MARGIN <= at <= end + _MARGIN)
        return max(around, default=0.0)


def _options(exchange: Exchange, number: int) -> Message:
    (host, port), (pbx, pbx_port) = exchange.address, exchange.pbx
    headers = [
        ("Via", f"SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bK{secrets.token_hex(8)}"),
        ("Max-Forwards", "70"),
        ("From", f"<sip:pulse@{host}>;tag={new_tag()}"),
        ("To", f"<sip:pulse@{pbx}>"),
        ("Call-ID", f"pulse-{number}"),
        ("CSeq", f"{number + 1} OPTIONS"),
        ("Contact", f"<sip:pulse@{host}:{port}>"),
    ]
    return Message(f"OPTIONS sip:pulse@{pbx}:{pbx_port} SIP/2.0", headers)
