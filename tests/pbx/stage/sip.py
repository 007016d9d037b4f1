"""SIP messages as the stage's phones need them: bytes to text headers and back; no I/O."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

COPIED_INTO_ANSWERS = ("Via", "From", "To", "Call-ID", "CSeq")
_TAG = re.compile(r";\s*tag=([^;>\s]+)", re.IGNORECASE)
_URI = re.compile(r"<([^>]+)>")


@dataclass(slots=True)
class Message:
    """A request or an answer; header names are compared without case."""

    first_line: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        head, _, body = data.decode(errors="replace").partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(first, [(name.strip(), value.strip()) for name, _, value in pairs], body)

    def encode(self) -> bytes:
        headers = [*self.headers, ("Content-Length", str(len(self.body.encode())))]
        lines = [self.first_line, *(f"{name}: {value}" for name, value in headers), "", self.body]
        return "\r\n".join(lines).encode()

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def get(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def is_answer(self) -> bool:
        return self.first_line.startswith("SIP/2.0 ")

    @property
    def code(self) -> int:
        return int(self.first_line.split(" ", 2)[1])

    @property
    def method(self) -> str:
        """Of a request; of an answer, the method it answers."""
        return self.get("CSeq").split()[1]

    @property
    def user(self) -> str:
        """The user of a request's URI: the number that is called."""
        return self.first_line.split()[1].partition(":")[2].partition("@")[0].partition(";")[0]

    @property
    def branch(self) -> str:
        return self.get("Via").partition("branch=")[2].partition(";")[0]

    @property
    def contact(self) -> str:
        """The URI further requests of the dialog go to."""
        return uri_of(self.get("Contact"))

    def answer(self, code: int, reason: str, *, to_tag: str = "", extra: Iterable[tuple[str, str]] = ()) -> "Message":
        """An answer to this request."""
        headers = [(name, value) for name, value in self.headers if name in COPIED_INTO_ANSWERS]
        if to_tag and not tag_of(self.get("To")):
            headers = [(name, f"{value};tag={to_tag}" if name == "To" else value) for name, value in headers]
        return Message(f"SIP/2.0 {code} {reason}", [*headers, *extra])


def tag_of(address: str) -> str:
    """The tag of a From or To."""
    match = _TAG.search(address)
    return match[1] if match else ""


def uri_of(address: str) -> str:
    """The URI in a From, To or Contact."""
    match = _URI.search(address)
    return match[1] if match else address.partition(";")[0]


def sdp(*, host: str, port: int, version: int, direction: str) -> str:
    """One audio stream of A-law at `host`:`port`."""
    return (
        f"v=0\r\no=- 1 {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=ptime:20\r\na={direction}\r\n"
    )


def media_address(body: str) -> tuple[str, int] | None:
    """Where the sender of this SDP listens."""
    host, port = re.search(r"c=IN IP4 (\S+)", body), re.search(r"m=audio (\d+)", body)
    return (host[1], int(port[1])) if host and port else None


def direction_of(body: str) -> str:
    """Who may send, by this SDP."""
    match = re.search(r"a=(sendonly|recvonly|inactive|sendrecv)", body)
    return match[1] if match else "sendrecv"
