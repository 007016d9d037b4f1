"""The names of keys and channels under which contexts stand in the store. Services rely on them."""

from typing import Final

# Calls whose tenant is not known yet. No tenant can be called so: a tenant's name begins with a letter or digit.
UNASSIGNED: Final = "_unassigned"


# Every channel under which changes are announced: as the agent's user is given it (agent.example.toml), since a server
# lets a user follow a pattern only if it is given in these very words.
ALL_CHANNELS: Final = "smcp:*"


def segment(tenant: str | None) -> str:
    """The part of a key that tells the tenant, so that a user of the store can be confined to one of them."""
    return UNASSIGNED if tenant is None else tenant


def call_key(owner: str, call_sid: str) -> str:
    """The context of one call, as JSON. `owner` is a tenant's segment, here and below."""
    return f"smcp:{owner}:call:{call_sid}"


def live_key(owner: str) -> str:
    """The set of a tenant's live calls."""
    return f"smcp:{owner}:live"


def changes_channel(owner: str) -> str:
    """Where every change of a tenant's contexts is announced as {"call_sid", "revision", "state"}."""
    return f"smcp:{owner}:changes"


def site_key(site: str) -> str:
    """All live calls of a site, whosever they are: a hash from call_sid to the tenant's segment.

    For each site, because several can share a store, and a site must clear away only its own calls.
    """
    return f"smcp:_site:{site}:live"


def presence_key(site: str) -> str:
    """Set by a site's agent; gone when the store has lost its memory."""
    return f"smcp:_site:{site}:agent"


def aside_key(key: str) -> str:
    """Where a value goes that is no context."""
    return f"{key}:set-aside"
