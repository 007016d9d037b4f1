"""Which service asks, and what it may."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from starlette.datastructures import Headers
from starlette.types import Scope

from agent.api.problems import busy, too_many, unauthorized
from agent.store.services import Registered, Service, hash_of

SocketAccess = Literal["none", "read", "write"]

_MAX_TOKEN: Final = 256
_SOCKET_SERVICE: Final = "socket"  # who comes by the socket without a token


class Access:
    """The services there are. `use` replaces them, also while requests are under way."""

    def __init__(self, socket_access: SocketAccess) -> None:
        self._by_hash: dict[str, Service] = {}
        self._on_socket = (
            None
            if socket_access == "none"
            else Service(_SOCKET_SERVICE, tenants=None, may_write=socket_access == "write")
        )

    def use(self, services: Iterable[Registered]) -> None:
        """From now on these are the services."""
        self._by_hash = {each.token_hash: each.service for each in services}

    def service_of(self, scope: Scope) -> Service:
        """Whose request it is. Raises Refusal."""
        shown = Headers(scope=scope).get("authorization")
        if shown is not None:
            kind, _, token = shown.partition(" ")
            found = self._by_hash.get(hash_of(token.strip())) if len(token) <= _MAX_TOKEN else None
            if kind.lower() != "bearer" or found is None:
                raise unauthorized("the token is none of a service's, or is no longer")
            return found
        if self._on_socket is not None and _is_unix(scope):
            return self._on_socket
        raise unauthorized("show a token as Authorization: Bearer; edge-agent services add gives one")

    def still_holds(self, service: Service) -> bool:
        """Whether nobody has taken its rights away since it came."""
        return service == self._on_socket or service in self._by_hash.values()


class Places:
    """How many waiting requests each service has."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def check(self, service: str) -> None:
        """Raise Refusal if none is left."""
        if self._taken[service] >= self._limit:
            raise too_many(f"this service waits in {self._limit} requests already")

    @contextmanager
    def taken(self, service: str) -> Iterator[None]:
        """Hold one, after `check`."""
        self._taken[service] += 1
        try:
            yield
        finally:
            self._taken[service] -= 1
            if not self._taken[service]:
                del self._taken[service]


class Room:
    """The bytes of request bodies in memory, over all connections."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """What takes more bytes for one request, to be given back in the end; it raises Refusal if none are left."""
        size = 0

        def take(more: int) -> None:
            nonlocal size
            if more > self._left:
                raise busy("other requests' bodies fill the agent's room")
            self._left -= more
            size += more

        try:
            yield take
        finally:
            self._left += size


def _is_unix(scope: Scope) -> bool:
    """A TCP connection has a port."""
    server = scope.get("server")
    return server is not None and server[1] is None
