"""The customers, trunks, phones and numbers of the simulated site, and the people who call them."""

from dataclasses import dataclass

UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class Phone:
    """An extension with somebody behind it."""

    number: str
    name: str

    @property
    def endpoint(self) -> str:
        """As in channel names: `PJSIP/101`."""
        return f"PJSIP/{self.number}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer of the PBX; its names are those that a careful installer would give."""

    name: str
    did_prefix: str  # the last two digits are missing
    phones: tuple[Phone, ...]
    shown_number: str | None = None  # set by the dialplan on outbound calls instead of the extension
    weight: int = 1

    @property
    def trunk(self) -> str:
        """The endpoint to the public network, without technology."""
        return f"trunk-{self.name}"

    @property
    def inbound_context(self) -> str:
        """Where calls from the trunk enter the dialplan."""
        return f"from-trunk-{self.name}"

    @property
    def internal_context(self) -> str:
        """Where the phones' calls enter the dialplan."""
        return f"internal-{self.name}"

    def did(self, suffix: int) -> str:
        """One of the tenant's own numbers; 00 is the menu, 01 to 09 the phones, then groups and queues."""
        return f"{self.did_prefix}{suffix:02}"

    def queue(self, kind: str) -> str:
        """A queue's name."""
        return f"{self.name}-{kind}"


def _phones(base: int, *names: str) -> tuple[Phone, ...]:
    return tuple(Phone(str(base + number), name) for number, name in enumerate(names, start=1))


ACME = Tenant(
    name="acme",
    did_prefix="9021255510",
    phones=_phones(100, "Ayşe", "Bülent", "Çiğdem", "Doğan", "Emel", "Ferit", "Gül", "Hakan", "Işıl"),
    weight=3,
)
GLOBEX = Tenant(
    name="globex",
    did_prefix="9031244420",
    phones=_phones(200, "Anna", "Ben", "Clara", "David", "Erika", "Frank", "Greta", "Hans", "Ida"),
    shown_number="903124442000",
    weight=2,
)
TENANTS = (ACME, GLOBEX)

# Which of a tenant's phones, by their place, serve which queue.
QUEUE_MEMBERS = {"sales": (0, 1, 2, 3), "support": (4, 5, 6, 7, 8)}
DID_MENU = 0
DID_GROUP = 10
DID_QUEUES = {"sales": 12, "support": 15}

# Names as Asterisk tells them, with their weight. Empty: the caller sends none. The last one comes from a phone that
# writes ISO-8859-9: Asterisk puts U+FFFD for every byte that is no UTF-8.
CALLER_NAMES = {
    "Ayşe Yılmaz": 4,
    "İBRAHİM ÖZTÜRK ÇAĞLAR": 3,
    "Mehmet Demir": 4,
    "Zeynep Şahin-Güneş": 3,
    "Ömer Faruk Işık": 3,
    "Jörg Müller": 2,
    "": 4,
    "Şükrü Gündoğdu".encode("iso-8859-9").decode("utf-8", errors="replace"): 1,
}
