"""The SIP phones, trunks and callers of the rig: SIPp, with scenarios written from what each shall do."""

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.pbx import town
from tests.pbx.leftovers import note_child
from tests.pbx.town import Answering, Behaviour, Refusing, Ringing
from tests.pbx.waiting import wait_until

CONTENT_SDP = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=rig 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio 9 RTP/AVP 8 0
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
"""

# A refusal of any kind ends the attempt; SIPp wants each named.
RETRANSMITTED = 'retrans="500"'
REFUSALS = (403, 404, 408, 480, 484, 486, 487, 488, 500, 503, 600, 603)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call as the calling side makes it."""

    call: str
    """The rig's own name for the call."""
    from_number: str
    from_display: bytes
    """As it stands before the address: quoted, or empty. Bytes, because some callers do not speak UTF-8."""
    from_host: str
    to_number: str
    then: str
    """One of `talk` (and hang up), `listen` (until the other side hangs up), `press` (a digit, then talk),
    `press_listen` (a digit, then until the other side hangs up), `cancel` (while it rings)."""
    after: timedelta
    """How long to talk, or to let it ring before cancelling."""
    digit: str = "1"
    menu: timedelta = timedelta(seconds=1)
    """How long to listen to the menu before pressing the digit."""


def sipp_is_installed() -> bool:
    return shutil.which("sipp") is not None


class AnsweringSide:
    """A SIPp that plays all phones, or a trunk's far ends: the last two digits of the number decide."""

    def __init__(self, *, host: str, port: int, directory: Path, name: str) -> None:
        self._host = host
        self._port = port
        self._directory = directory
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        scenario = self._directory / f"{self._name}.xml"
        scenario.write_text(answering_scenario(town.BEHAVIOURS))
        self._process = _sipp(
            scenario, "-i", self._host, "-p", str(self._port), directory=self._directory, name=self._name
        )
        wait_until(self._listens, what=f"SIPp {self._name} listening", seconds=10)

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / f"{self._name}.out").read_text(errors="replace")[-2000:]
        address = "".join(f"{int(part):02X}" for part in reversed(self._host.split(".")))
        return f"{address}:{self._port:04X}" in Path("/proc/net/udp").read_text()


class CallingSide:
    """A SIPp that makes the attempts in their order, evenly spread over a time."""

    def __init__(self, *, host: str, port: int, asterisk_port: int, directory: Path, name: str) -> None:
        self._host = host
        self._port = port
        self._asterisk_port = asterisk_port
        self._directory = directory
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, attempts: Sequence[Attempt], *, over: timedelta) -> None:
        scenario = self._directory / f"{self._name}.xml"
        scenario.write_text(calling_scenario())
        fields = self._directory / f"{self._name}.csv"
        fields.write_bytes(b"SEQUENTIAL\n" + b"".join(_line(attempt) for attempt in attempts))
        self._process = _sipp(
            scenario,
            f"127.0.0.1:{self._asterisk_port}",
            *("-inf", str(fields), "-i", self._host, "-p", str(self._port)),
            *("-m", str(len(attempts)), "-r", str(len(attempts)), "-rp", str(max(1, int(over.total_seconds() * 1000)))),
            *("-l", "10000", "-recv_timeout", "60000"),
            directory=self._directory,
            name=self._name,
        )

    @property
    def finished(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def result(self) -> int | None:
        """0 when every attempt went as its script says; a cut line or a restart makes it 1."""
        return None if self._process is None else self._process.poll()

    def errors(self) -> str:
        path = self._directory / f"{self._name}.err"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)


def _sipp(scenario: Path, *arguments: str, directory: Path, name: str) -> subprocess.Popen[bytes]:
    errors = str(directory / f"{name}.err")
    with (directory / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(
            ["sipp", "-sf", str(scenario), *arguments, "-nostdin", "-aa", "-trace_err", "-error_file", errors],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=directory,
            start_new_session=True,
        )
    note_child(directory.parent, process.pid)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.poll() is None:
        process.kill()
        process.wait(5)


def _line(attempt: Attempt) -> bytes:
    texts = (
        attempt.call,
        attempt.from_number,
        None,
        attempt.from_host,
        attempt.to_number,
        attempt.then,
        str(_ms(attempt.after)),
        attempt.digit,
        str(_ms(attempt.menu)),
    )
    return b";".join(attempt.from_display if text is None else text.encode() for text in texts) + b"\n"


def _ms(length: timedelta) -> int:
    return round(length.total_seconds() * 1000)


def _send(text: str, attributes: str = "") -> str:
    return f"<send{attributes and ' '}{attributes}><![CDATA[\n\n{text}\n]]></send>\n"


# What the calling side says. Field numbers are those of `_line`.
_INVITE = (
    """INVITE sip:[field4]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-[call_number]-invite
From: [field2] <sip:[field1]@[field3]>;tag=[pid]c[call_number]
To: <sip:[field4]@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:[field1]@[local_ip]:[local_port]>
Max-Forwards: 70
Allow: INVITE, ACK, CANCEL, BYE, INFO
X-Rig-Call: [field0]
"""
    + CONTENT_SDP
)


_THE_NUMBER = "sip:[field4]@[remote_ip]:[remote_port]"
_TO_TAG = "[peer_tag_param]"


def _request(
    method: str,
    cseq: int,
    *,
    branch: str,
    target: str = "[next_url]",
    to_tag: str = _TO_TAG,
    body: str = "Content-Length: 0\n",
) -> str:
    return f"""{method} {target} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-[call_number]-{branch}
From: [field2] <sip:[field1]@[field3]>;tag=[pid]c[call_number]
To: <{_THE_NUMBER}>{to_tag}
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:[field1]@[local_ip]:[local_port]>
Max-Forwards: 70
{body}"""


_OK = """SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0
"""

_INFO = _request(
    "INFO",
    2,
    branch="info",
    body="Content-Type: application/dtmf-relay\nContent-Length: [len]\n\nSignal=[field7]\nDuration=160\n",
)


def calling_scenario() -> str:
    """One script for every kind of attempt; the fields of its line say where it branches."""
    refused = "".join(f'<recv response="{code}" optional="true" next="refused"/>\n' for code in REFUSALS)
    branches = "".join(
        f'<nop><action><strcmp assign_to="{name}_cmp" variable="then" value="{name}"/>'
        f'<test assign_to="is_{name}" variable="{name}_cmp" compare="equal" value="0"/></action></nop>\n'
        for name in ("cancel", "listen", "press", "press_listen")
    )
    # A CANCEL and the ACK of a refusal belong to the INVITE's own transaction.
    cancel = _send(_request("CANCEL", 1, branch="invite", target=_THE_NUMBER, to_tag=""), RETRANSMITTED)
    acknowledge_refusal = _send(_request("ACK", 1, branch="invite", target=_THE_NUMBER))
    return f"""<?xml version="1.0" encoding="UTF-8" ?>
<scenario name="caller">
<nop><action>
<assignstr assign_to="then" value="[field5]"/>
<assignstr assign_to="after_text" value="[field6]"/><todouble assign_to="after" variable="after_text"/>
<assignstr assign_to="menu_text" value="[field8]"/><todouble assign_to="menu" variable="menu_text"/>
</action></nop>
{branches}
{_send(_INVITE, RETRANSMITTED + ' next="cancel" test="is_cancel"')}
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="183" optional="true"/>
{refused}
<recv response="200" rrs="true"/>
{_send(_request("ACK", 1, branch="ack"), 'next="listen" test="is_listen"')}
<nop next="press" test="is_press"/>
<nop next="press" test="is_press_listen"/>
<label id="talk"/>
<pause variable="after"/>
{_send(_request("BYE", 3, branch="bye"), RETRANSMITTED)}
<recv response="200" next="end"/>

<label id="press"/>
<pause variable="menu"/>
{_send(_INFO, RETRANSMITTED)}
<recv response="200" next="listen" test="is_press_listen"/>
<nop next="talk"/>

<label id="listen"/>
<recv request="BYE"/>
{_send(_OK)}
<nop next="end"/>

<label id="cancel"/>
<recv response="100" optional="true"/>
<recv response="183" optional="true"/>
{refused}
<recv response="180"/>
<pause variable="after"/>
{cancel}<recv response="200"/>
<recv response="487"/>
{acknowledge_refusal}<nop next="end"/>

<label id="refused"/>
{acknowledge_refusal}<label id="end"/>
<nop/>
<Reference variables="then,after_text,menu_text"/>
</scenario>
"""


def answering_scenario(behaviours: dict[int, Behaviour]) -> str:
    """One script for every far end; the number's last two digits say where it branches."""
    tests = "".join(
        f'<ereg regexp="INVITE sip:[^@]*0{digit}@" search_in="msg" assign_to="b{digit}"/>\n' for digit in behaviours
    )
    jumps = "".join(f'<nop next="b{digit}" test="b{digit}"/>\n' for digit in behaviours)
    parts = "".join(f'<label id="b{digit}"/>\n{_behave(digit, behaviour)}\n' for digit, behaviour in behaviours.items())
    return f"""<?xml version="1.0" encoding="UTF-8" ?>
<scenario name="answering side">
<recv request="INVITE" rrs="true"><action>
<ereg regexp="([^;]*)" search_in="hdr" header="CSeq:" assign_to="invite_cseq"/>
<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="invite_via"/>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="from"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="to"/>
{tests}</action></recv>
{jumps}{_send(_answer(500, "No Such Behaviour"))}
<recv request="ACK" next="end"/>
{parts}
<label id="cancelled"/>
{_send(_OK)}
{_send(_answer(487, "Request Terminated"))}
<recv request="ACK" next="end"/>

<label id="bye"/>
{_send(_OK)}
<label id="end"/>
<nop/>
</scenario>
"""


# The INVITE's own headers, remembered: after a CANCEL the last message is another one.
_INVITE_HEADERS = """Via:[$invite_via]
From:[$from]
To:[$to];tag=[pid]a[call_number]
Call-ID: [call_id]
CSeq:[$invite_cseq]
Contact: <sip:[local_ip]:[local_port]>
Allow: INVITE, ACK, CANCEL, BYE
"""


def _answer(code: int, reason: str, body: str = "Content-Length: 0\n") -> str:
    return f"SIP/2.0 {code} {reason}\n{_INVITE_HEADERS}{body}"


def _behave(digit: int, behaviour: Behaviour) -> str:
    ringing = _send(_answer(180, "Ringing"))
    match behaviour:
        case Refusing(code=code, reason=reason):
            return _send(_answer(code, reason), RETRANSMITTED) + '<recv request="ACK" next="end"/>\n'
        case Ringing():
            return ringing + '<recv request="CANCEL" next="cancelled"/>\n'
        case Answering(ring=ring, talk=talk):
            pick_up = (
                f'{ringing}<recv request="CANCEL" next="cancelled" timeout="{_ms(ring)}" ontimeout="b{digit}_up"/>\n'
                f'<label id="b{digit}_up"/>\n'
                f"{_send(_answer(200, 'OK', CONTENT_SDP), RETRANSMITTED)}"
                '<recv request="ACK"/>\n'
            )
            if talk is None:
                return pick_up + '<recv request="BYE" next="bye"/>\n'
            bye = """BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From:[$to];tag=[pid]a[call_number]
To:[$from]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0
"""
            return (
                f'{pick_up}<recv request="BYE" next="bye" timeout="{_ms(talk)}" ontimeout="b{digit}_bye"/>\n'
                f'<label id="b{digit}_bye"/>\n'
                f"{_send(bye, RETRANSMITTED)}"
                '<recv response="200" next="end"/>\n'
            )
