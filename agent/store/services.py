"""Services that may use the live context: their names, what they may, and what their tokens hash to."""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from agent.store.moments import moment_of, moment_text

_TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Service:
    """Who may ask, and for what."""

    name: str
    tenants: frozenset[str] | None  # None: all, and calls that no tenant has yet
    may_write: bool

    def sees(self, tenant: str | None) -> bool:
        """Whether the calls of this tenant (None: of none yet) are its to see."""
        return self.tenants is None or (tenant is not None and tenant in self.tenants)


@dataclass(frozen=True, slots=True)
class Registered:
    """A service as it is kept. The token itself is known to the service alone."""

    service: Service
    token_hash: str
    added_at: datetime

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """What may be told of it."""
        tenants = None if self.service.tenants is None else sorted(self.service.tenants)
        return {
            "name": self.service.name,
            "tenants": tenants,
            "may_write": self.service.may_write,
            "added_at": self.added_at.isoformat(),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:  # Any: JSON
        """What `as_dict` told, with its `token_hash`. Raises KeyError, TypeError or ValueError."""
        tenants = told["tenants"]
        service = Service(
            name=str(told["name"]),
            tenants=None if tenants is None else frozenset(map(str, tenants)),
            may_write=bool(told["may_write"]),
        )
        return cls(service, token_hash=str(told["token_hash"]), added_at=datetime.fromisoformat(told["added_at"]))


def new_token() -> str:
    """For a new service; so long that it needs no slow hash."""
    return f"edge_{secrets.token_urlsafe(_TOKEN_BYTES)}"


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def add(connection: sqlite3.Connection, new: Registered) -> bool:
    """Keep a service; False if there is one of that name. Inside the caller's transaction."""
    tenants = None if new.service.tenants is None else json.dumps(sorted(new.service.tenants))
    done = connection.execute(
        "INSERT INTO service (name, token_hash, tenants, may_write, added_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO NOTHING",
        (new.service.name, new.token_hash, tenants, new.service.may_write, moment_text(new.added_at)),
    )
    return done.rowcount > 0


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Forget a service; False if there is none of that name. Inside the caller's transaction."""
    return connection.execute("DELETE FROM service WHERE name = ?", (name,)).rowcount > 0


def read_all(connection: sqlite3.Connection) -> Sequence[Registered]:
    """Every service, by name."""
    found = connection.execute("SELECT name, tenants, may_write, token_hash, added_at FROM service ORDER BY name")
    return [
        Registered(
            Service(name, None if tenants is None else frozenset(json.loads(tenants)), bool(may_write)),
            token_hash,
            moment_of(added_at),
        )
        for name, tenants, may_write, token_hash, added_at in found
    ]
