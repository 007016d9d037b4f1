"""Who lives in the rig: two tenants, their trunks, phones and numbers, and how each phone behaves."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    did_prefix: str
    """The first ten digits of its numbers; two more, 00 to 19, complete them."""
    extension_base: int
    trunk_host: str
    phone_names: tuple[str, ...]
    outbound_number: str | None = None
    """Shown to those it calls instead of the extension, set by the dialplan after the call began."""

    @property
    def trunk(self) -> str:
        return f"trunk-{self.name}"

    @property
    def inbound_context(self) -> str:
        return f"from-trunk-{self.name}"

    @property
    def internal_context(self) -> str:
        return f"internal-{self.name}"

    def extension(self, behaviour: int) -> str:
        return str(self.extension_base + behaviour)

    def did(self, suffix: int) -> str:
        return f"{self.did_prefix}{suffix:02}"

    def queue(self, kind: str) -> str:
        return f"{self.name}-{kind}"


ACME = Tenant(
    name="acme",
    did_prefix="9021255510",
    extension_base=100,
    trunk_host="127.0.0.2",
    phone_names=("Ayşe", "Bülent", "Çiğdem", "Doğan", "Emel", "Ferit", "Gül", "Hakan", "Işıl"),
)
GLOBEX = Tenant(
    name="globex",
    did_prefix="9031244420",
    extension_base=200,
    trunk_host="127.0.0.3",
    phone_names=("Anna", "Ben", "Clara", "David", "Erika", "Frank", "Greta", "Hans", "Ida"),
    outbound_number="903124442000",
)
TENANTS = (ACME, GLOBEX)

PHONES_HOST = "127.0.0.4"

# The last two digits of a number decide what the one behind it does, for phones and for the trunks' far ends.
ANSWERS_SOON = 1
ANSWERS_LATER = 2
HANGS_UP_AFTER_A_WHILE = 3
RINGS_FOR_EVER = 4
BUSY = 5
DECLINES = 6
CONGESTED = 7
NOT_THERE = 8
HANGS_UP_LATER = 9


@dataclass(frozen=True, slots=True)
class Answering:
    """A far end that picks up; `talk` says when it hangs up itself, None that it leaves it to the caller."""

    ring: timedelta
    talk: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Refusing:
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ringing:
    """A far end that never picks up."""


Behaviour = Answering | Refusing | Ringing

BEHAVIOURS: dict[int, Behaviour] = {
    ANSWERS_SOON: Answering(ring=timedelta(milliseconds=400)),
    ANSWERS_LATER: Answering(ring=timedelta(milliseconds=1000)),
    HANGS_UP_AFTER_A_WHILE: Answering(ring=timedelta(milliseconds=500), talk=timedelta(milliseconds=2000)),
    RINGS_FOR_EVER: Ringing(),
    BUSY: Refusing(486, "Busy Here"),
    DECLINES: Refusing(603, "Decline"),
    CONGESTED: Refusing(503, "Service Unavailable"),
    # As a phone it has no contact, so nobody ever asks; as a trunk's far end it is a number not in use.
    NOT_THERE: Refusing(404, "Not Found"),
    HANGS_UP_LATER: Answering(ring=timedelta(milliseconds=1500), talk=timedelta(milliseconds=3500)),
}

# What the last two digits of a tenant's own numbers (DIDs) lead to. 01 to 09 are the phones above.
DID_IVR = 0
DID_GROUP_ONE_ANSWERS = 10
DID_GROUP_NOBODY = 11
DID_QUEUE = 12
DID_QUEUE_NOBODY = 13
DID_QUEUE_GIVES_UP = 14
DID_QUEUE_AGENT_HANGS_UP = 15

INBOUND_RING_SECONDS = 3
INTERNAL_RING_SECONDS = 3
OUTBOUND_RING_SECONDS = 4
GROUP_RING_SECONDS = 3
QUEUE_PATIENCE_SECONDS = 4
