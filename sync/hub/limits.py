"""How much the hub takes on, and the counts that keep it there: bytes in flight, requests of one site, rates."""

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from sync.hub.problems import Busy, RateLimited, TooManyRequests

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one hub process. A batch in memory takes about five times its unpacked bytes while it is stored."""

    connections: int = 2048  # open at once, idle ones included
    header_seconds: float = 10.0  # from a connection's or a request's first byte to the end of its headers
    header_bytes: int = 16 * 1024
    idle_seconds: float = 75.0  # balancers let go of idle connections after 60 s
    body_seconds: float = 60.0  # for sending a body, and for reading anything of an answer
    answer_seconds: float = 90.0  # for everything, from headers to the last byte of the answer
    stop_seconds: float = 30.0  # what is under way may take that long after SIGTERM
    batch_bytes: int = 16 * MEBIBYTE  # of a batch after decompression
    batch_records: int = 10_000
    ratio: int = 200  # of unpacked bytes to sent ones, beyond the first mebibyte
    message_bytes: int = 64 * 1024  # of any other body
    bytes_in_flight: int = 96 * MEBIBYTE  # of all batches, unpacked
    requests_per_site: int = 8  # at once
    wait_seconds: float = 5.0  # for a database connection
    waiting: int = 256  # requests that wait for one
    refusals_per_minute: int = 60  # unknown credentials from one address
    enrolments_per_minute: int = 10  # from one address


class Budget:
    """The bytes of bodies in memory; each site may hold half of them at most, so that none shuts the others out."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.bytes_in_flight
        self._limit_per_site = limits.bytes_in_flight // 2
        self._held: Counter[str] = Counter()
        self.used = 0

    @contextmanager
    def share(self, site: str) -> Iterator["Share"]:
        """What one request holds, given back in the end."""
        share = Share(self, site)
        try:
            yield share
        finally:
            share.give_back()

    def take(self, site: str, size: int) -> None:
        """Hold more; raises Busy or TooManyRequests if there is no room now."""
        if self._held[site] + size > self._limit_per_site:
            raise TooManyRequests("this site sends too much at once")
        if self.used + size > self._limit:
            raise Busy("the hub holds as many batches as it can")
        self._held[site] += size
        self.used += size

    def give(self, site: str, size: int) -> None:
        """Hold less."""
        self.used -= size
        self._held[site] -= size
        if not self._held[site]:
            del self._held[site]


class Share:
    """The bytes one request holds."""

    def __init__(self, budget: Budget, site: str) -> None:
        self._budget = budget
        self._site = site
        self._size = 0

    def take(self, size: int) -> None:
        """Hold more; raises Busy or TooManyRequests."""
        self._budget.take(self._site, size)
        self._size += size

    def give_back(self) -> None:
        """Hold nothing."""
        self._budget.give(self._site, self._size)
        self._size = 0


class Places:
    """How many requests of each site are under way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, site: str) -> Iterator[None]:
        """Hold a place; raises TooManyRequests if the site has none left."""
        if self._taken[site] >= self._limit:
            raise TooManyRequests("this site has too many requests under way")
        self._taken[site] += 1
        try:
            yield
        finally:
            self._taken[site] -= 1
            if not self._taken[site]:
                del self._taken[site]


class Turns:
    """A site's batches are stored one after the other by a lock on its row; here they wait without a connection."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, site: str) -> asyncio.Lock:
        """To be held while the site's row is; it is forgotten when nobody uses it."""
        lock = self._locks.get(site)
        if lock is None:
            lock = self._locks[site] = asyncio.Lock()
        return lock


class Rate:
    """So many a minute from one address, with as many at once; addresses not heard of for long are forgotten.

    An IPv6 customer has a whole network, so its first 64 bits count as the address.
    """

    _ADDRESSES = 10_000

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._most = float(per_minute)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, address: str) -> None:
        """Count one; raises RateLimited when there was one too many."""
        self.check(address)
        key = _network(address)
        self._left[key] = (self._now_left(key) - 1, self._clock())
        self._left.move_to_end(key)
        if len(self._left) > self._ADDRESSES:
            self._left.popitem(last=False)

    def check(self, address: str) -> None:
        """Raise RateLimited if the next one would be too many."""
        left = self._now_left(_network(address))
        if left < 1:
            raise RateLimited("too many tries from this address", retry_after_seconds=(1 - left) / self._per_second)

    def _now_left(self, key: str) -> float:
        left, since = self._left.get(key, (self._most, 0.0))
        return min(self._most, left + (self._clock() - since) * self._per_second)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
