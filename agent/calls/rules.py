"""What a site tells about its PBX that the PBX itself cannot: what is a trunk, what answers in a person's stead."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any, Final

from agent.calls.numbers import NumberPlan
from config.settings import AsteriskSettings


def _compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(translate(pattern) for pattern in patterns)
    return re.compile(joined) if joined else None


def _default(setting: str) -> Any:  # Any: the setting's own type
    return AsteriskSettings.model_fields[setting].default


_NO_COUNTRY = NumberPlan()


@dataclass(frozen=True)
class CallRules:
    """Patterns are shell-like and case-sensitive; applications are compared without case.

    What a site does not tell is as in the settings of a PBX.
    """

    trunks: tuple[str, ...] = _default("trunks")
    inbound_contexts: tuple[str, ...] = _default("inbound_contexts")
    answering_applications: tuple[str, ...] = _default("answering_applications")
    voicemail_applications: tuple[str, ...] = _default("voicemail_applications")
    numbers: NumberPlan = _NO_COUNTRY
    _trunk: re.Pattern[str] | None = field(init=False, repr=False)
    _inbound: re.Pattern[str] | None = field(init=False, repr=False)
    _answering: frozenset[str] = field(init=False, repr=False)
    _voicemail: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "_trunk", _compiled(self.trunks))
        set_(self, "_inbound", _compiled(self.inbound_contexts))
        set_(self, "_answering", frozenset(name.lower() for name in self.answering_applications))
        set_(self, "_voicemail", frozenset(name.lower() for name in self.voicemail_applications))

    def is_trunk(self, endpoint: str) -> bool:
        """Whether a channel's endpoint ("PJSIP/trunk-acme") leads to the public network."""
        return self._trunk is not None and self._trunk.match(endpoint) is not None

    def is_inbound_context(self, context: str) -> bool:
        """Whether calls from the public network arrive in this dialplan context."""
        return self._inbound is not None and self._inbound.match(context) is not None

    def is_answering(self, application: str) -> bool:
        """Whether this application is a service that talks to the caller in a person's stead."""
        return application.lower() in self._answering

    def is_voicemail(self, application: str) -> bool:
        """Whether this application takes a message."""
        return application.lower() in self._voicemail


def endpoint_of(channel_name: str) -> str:
    """`PJSIP/trunk-acme-0000001a` is a channel of `PJSIP/trunk-acme`; Local's halves `;1` and `;2` are one endpoint."""
    return channel_name.rpartition("-")[0] or channel_name


def resource_of(endpoint: str) -> str:
    """`PJSIP/101` is `101`, `Local/101@phones` is `101`."""
    return endpoint.partition("/")[2].partition("@")[0]


def dialled_endpoints(data: str) -> list[str]:
    """The endpoints named in the arguments of Dial, as endpoints are named in channels.

    `PJSIP/101&PJSIP/5551234@trunk-acme,30,tT` gives `PJSIP/101` and `PJSIP/trunk-acme`; chan_sip and IAX2 write
    `SIP/trunk/number`.
    """
    endpoints = []
    for destination in data.partition(",")[0].split("&"):
        technology, slash, rest = destination.strip().partition("/")
        if not slash:
            continue
        number, at, peer = rest.partition("@")
        resource = peer if at and technology.lower() != "local" else number
        endpoints.append(f"{technology}/{resource.partition('/')[0]}")
    return endpoints


def queue_name(data: str) -> str | None:
    """The queue named in the arguments of Queue: `sales,,,,30` is `sales`."""
    return data.partition(",")[0] or None


# Elsewhere the number in a channel's name is that of a port: `DAHDI/3`.
_NAMED_BY_EXTENSION: Final = frozenset({"SIP", "PJSIP", "IAX2", "SCCP", "LOCAL"})


def extension_of(endpoint: str) -> str | None:
    """The extension a phone's endpoint is named after, as nearly everywhere; its caller id may show another number."""
    technology = endpoint.partition("/")[0].upper()
    resource = resource_of(endpoint)
    return resource if resource.isdecimal() and technology in _NAMED_BY_EXTENSION else None


_DIGITS: Final = re.compile(r"[+*#0-9]+")


def dialled_number(dial_string: str) -> str | None:
    """The number in a dial string as DialBegin tells it: `905551234@trunk-acme`, `trunk-acme/905551234`, `101`,
    `trunk-acme/sip:905551234@192.0.2.1`; None where there is none."""
    for part in reversed(dial_string.split("/")):
        number = part.removeprefix("sip:").removeprefix("PJSIP:").partition("@")[0]
        if _DIGITS.fullmatch(number):
            return number
    return None
