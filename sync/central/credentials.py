"""What a site shows to be let in: credentials, and the one-time codes that are exchanged for them.

Both are random and long (256 and 80 bits), so a plain SHA-256 of them is all that is kept, wrong ones need no lock-out
(which would be a tool to lock others out), and what finds one by its hash learns nothing from the time it takes.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from sync.central.presence import GIVE_UP_LEASE
from sync.central.transaction import for_site, require_enabled
from sync.errors import SiteRefused
from sync.wire import Enrolled

CODE_HOURS: Final = 24

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no letter is taken for another
_MISREAD = str.maketrans("ILO", "110", "- \t\r\n")
_CODE = re.compile(rf"[{_ALPHABET}]{{16}}")
_CREDENTIAL = re.compile(r"[0-9a-f]{16}\.[A-Za-z0-9_-]{43}")
_LONGEST = 128  # characters of anything shown that are looked at

_FIND = """
SELECT site, secret_sha256, used_at IS NOT NULL AS is_used, revoked_at IS NOT NULL AS is_revoked,
    coalesce(expires_at <= clock_timestamp(), false) AS is_expired
FROM credential WHERE id = $1
"""
_ADD = "INSERT INTO credential (id, site, secret_sha256) VALUES ($1, $2, $3)"
_USE = "UPDATE credential SET used_at = clock_timestamp() WHERE id = $1 AND used_at IS NULL"
_REVOKE_OTHERS = """
UPDATE credential SET revoked_at = clock_timestamp() WHERE site = $1 AND id <> $2 AND revoked_at IS NULL
"""
_REVOKE_UNUSED = f"{_REVOKE_OTHERS} AND used_at IS NULL"
# At most one note a minute: whoever has no way in any more must not make the centre write.
_NOTE_REFUSED = """
UPDATE site SET refused_at = clock_timestamp(), refused_why = $2, refused_holder = NULL, refused_host = NULL
WHERE name = $1 AND (refused_why IS DISTINCT FROM $2 OR refused_at < clock_timestamp() - interval '1 minute')
"""
_FIND_CODE = """
SELECT site, used_at IS NOT NULL AS is_used, expires_at <= clock_timestamp() AS is_expired
FROM enrolment_code WHERE code_sha256 = $1
"""
_USE_CODE = """
UPDATE enrolment_code SET used_at = clock_timestamp() WHERE code_sha256 = $1 AND used_at IS NULL RETURNING site
"""
_TENANTS = """
SELECT tenant.name FROM site_tenant JOIN tenant ON tenant.id = site_tenant.tenant_id
WHERE site_tenant.site = $1 AND site_tenant.ended_at IS NULL AND tenant.is_active ORDER BY tenant.name
"""
_NOTE = "INSERT INTO audit (who, what, site, detail) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True)
class Verified:
    """Whose credential it is. `credential_id` is its public half."""

    site: str
    credential_id: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A new credential: its public half, what is kept of the other, and the whole."""

    id: str
    secret_sha256: bytes = field(repr=False)
    text: str = field(repr=False)

    @classmethod
    def make(cls) -> "Credential":
        """One that nobody has."""
        public, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        return cls(public, _sha256(secret), f"{public}.{secret}")


def make_code() -> str:
    """An enrolment code that nobody has: XXXX-XXXX-XXXX-XXXX."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(16))
    return "-".join(letters[at : at + 4] for at in range(0, 16, 4))


def hash_of_code(code: str) -> bytes | None:
    """What is kept of a code, however it was typed; None if it can be none."""
    letters = code[:_LONGEST].upper().translate(_MISREAD)
    return _sha256(letters) if _CODE.fullmatch(letters) else None


async def verify(connection: asyncpg.Connection, credential: str, timeout_seconds: float) -> Verified:
    """Tell whose credential this is. The first use of a new one revokes the site's others.

    Raises SiteRefused: credential_unknown, credential_revoked or credential_expired.
    """
    public, _, secret = credential[:_LONGEST].partition(".")
    is_well_formed = _CREDENTIAL.fullmatch(credential[:_LONGEST]) is not None
    row = await connection.fetchrow(_FIND, public) if is_well_formed else None
    if row is None or not hmac.compare_digest(_sha256(secret), row["secret_sha256"]):
        raise SiteRefused(
            "credential_unknown", "the centre does not know this credential; enrol the agent with a new code"
        )
    site: str = row["site"]
    if row["is_revoked"] or row["is_expired"]:
        word = "revoked" if row["is_revoked"] else "expired"
        async with for_site(connection, site, timeout_seconds):
            await connection.execute(_NOTE_REFUSED, site, f"credential_{word}")
        raise SiteRefused(
            f"credential_{word}",
            f"the credential of site {site!r} is {word}; `edge-hub sites code {site}` makes a code to enrol anew",
        )
    if not row["is_used"]:
        async with for_site(connection, site, timeout_seconds):
            await connection.execute(_USE, public)
            await connection.execute(_REVOKE_OTHERS, site, public)
    return Verified(site, public)


async def enrol(
    connection: asyncpg.Connection, code: str, *, site: str | None, host: str, timeout_seconds: float
) -> Enrolled:
    """Exchange a code for its site's credential; the older ones are revoked and the lease is given up.

    `site` is what the agent's settings say, if it has any. Raises SiteRefused: code_unknown, code_expired, code_used,
    wrong_site (the code can then still be used) or site_disabled.
    """
    hashed = hash_of_code(code)
    row = await connection.fetchrow(_FIND_CODE, hashed) if hashed is not None else None
    if row is None or hashed is None:
        raise SiteRefused(
            "code_unknown", "the centre does not know this enrolment code; check it, or ask for a new one"
        )
    its_site: str = row["site"]
    if row["is_used"]:
        raise _used(its_site)
    if row["is_expired"]:
        raise SiteRefused(
            "code_expired", f"this enrolment code has expired; `edge-hub sites code {its_site}` makes a new one"
        )
    if site is not None and site != its_site:
        raise SiteRefused("wrong_site", f"this enrolment code is for site {its_site!r}; the settings here name another")
    async with for_site(connection, its_site, timeout_seconds):
        await require_enabled(connection, its_site)
        if await connection.fetchval(_USE_CODE, hashed) is None:
            raise _used(its_site)  # another was faster
        credential = await _add(connection, its_site)
        await connection.execute(_REVOKE_OTHERS, its_site, credential.id)
        await connection.execute(GIVE_UP_LEASE, its_site)
        await connection.execute(_NOTE, "hub", "enrolled", its_site, f"on {_plain(host)}")
        tenants = tuple(found["name"] for found in await connection.fetch(_TENANTS, its_site))
    return Enrolled(site=its_site, credential=credential.text, tenants=tenants)


async def rotate(connection: asyncpg.Connection, credential: str, timeout_seconds: float) -> str:
    """A new credential for the same site; the old one works until the new one is used. Raises as `verify` does."""
    verified = await verify(connection, credential, timeout_seconds)
    async with for_site(connection, verified.site, timeout_seconds):
        await require_enabled(connection, verified.site)
        await connection.execute(_REVOKE_UNUSED, verified.site, verified.credential_id)
        new = await _add(connection, verified.site)
        await connection.execute(_NOTE, "hub", "rotated", verified.site, f"{verified.credential_id} -> {new.id}")
    return new.text


async def _add(connection: asyncpg.Connection, site: str) -> Credential:
    credential = Credential.make()
    await connection.execute(_ADD, credential.id, site, credential.secret_sha256)
    return credential


def _used(site: str) -> SiteRefused:
    return SiteRefused(
        "code_used", f"this enrolment code was used already; `edge-hub sites code {site}` makes a new one"
    )


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_LONGEST])


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
