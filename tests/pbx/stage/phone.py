"""A phone of the stage: a small SIP user agent whose user is the test. It says when each thing was done or seen."""

import asyncio
import contextlib
import secrets
from datetime import UTC, datetime
from urllib.parse import quote

from tests.pbx.stage.exchange import Exchange, new_tag
from tests.pbx.stage.sip import Message, direction_of, media_address, sdp, tag_of, uri_of

PATIENCE_SECONDS = 15.0
# Longer than the PBX makes each digit sound, shorter than it waits for the next.
DIGIT_SECONDS = 0.2
# Of a consultation in an application the PBX takes the other's channel there when the transfer is made, and loses it if
# the consultation ends meanwhile.
_CONSULTATION_STAYS_SECONDS = 0.1
_MIRRORED = {"sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive", "sendrecv": "sendrecv"}


def now() -> datetime:
    return datetime.now(UTC)


class Happening:
    """Something that happens once, and when."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.event = asyncio.Event()
        self.at: datetime | None = None

    def happened(self) -> datetime:
        if self.at is None:
            self.at = now()
            self.event.set()
        return self.at

    async def wait(self, seconds: float = PATIENCE_SECONDS) -> datetime:
        """When it happened; AssertionError if it does not in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            raise AssertionError(f"{self._what}: not within {seconds:g} s") from None
        assert self.at is not None
        return self.at


class Phone:
    """Somebody with a number, behind an exchange; may have several calls at once."""

    def __init__(self, exchange: Exchange, number: str, name: str = "") -> None:
        self.exchange = exchange
        self.number = number
        self.name = name
        self._came: asyncio.Queue[Call] = asyncio.Queue()
        exchange.phones[number] = self

    def __str__(self) -> str:
        return self.number

    async def call(self, number: str) -> "Call":
        """Dial; returns at once, `asked_at` says when."""
        host, port = self.exchange.pbx
        uri = f"sip:{number}@{host}:{port}"
        shown = f'"{self.name}" ' if self.name else ""
        call = Call(
            self,
            call_id=secrets.token_hex(12),
            ours=f"{shown}<sip:{self.number}@{self.exchange.address[0]}>;tag={new_tag()}",
            theirs=f"<{uri}>",
            target=uri,
            number=number,
        )
        call.begin()
        return call

    async def wait_for_call(self, seconds: float = PATIENCE_SECONDS) -> "Call":
        """The next call that comes, unanswered and not ringing yet."""
        try:
            async with asyncio.timeout(seconds):
                return await self._came.get()
        except TimeoutError:
            raise AssertionError(f"{self.number} was not called within {seconds:g} s") from None

    async def rings(self, seconds: float = PATIENCE_SECONDS) -> "Call":
        """The next call that comes; the phone rings at once."""
        call = await self.wait_for_call(seconds)
        call.ring()
        return call

    def invited(self, invite: Message) -> None:
        call = Call(
            self,
            call_id=invite.get("Call-ID"),
            ours=f"{invite.get('To')};tag={new_tag()}",
            theirs=invite.get("From"),
            target=invite.contact,
            number=self.number,
            invite=invite,
        )
        call.sound_to = media_address(invite.body)
        self.exchange.send(invite.answer(100, "Trying"))
        self._came.put_nowait(call)


class Call:
    """One of a phone's calls, made or taken. Methods that do something return the moment at which it was done."""

    def __init__(
        self,
        phone: Phone,
        *,
        call_id: str,
        ours: str,
        theirs: str,
        target: str,
        number: str,
        invite: Message | None = None,
    ) -> None:
        who = f"{number} is called" if invite else f"{phone.number} calls {number}"
        self.phone = phone
        self.number = number
        """The number that was dialled, as its caller or its callee knows it."""
        self.asked_at = now()
        self.sound_to: tuple[str, int] | None = None
        self.sound_source = secrets.randbits(32)
        self.reason = 0
        """The answer with which the far end refused, if it did."""
        self._exchange = phone.exchange
        self._call_id, self._ours, self._theirs, self._target = call_id, ours, theirs, target
        self._invite = invite
        self._is_ours = invite is None
        self._cseq = 1
        self._version = 0
        self._direction = "sendrecv"
        self._accepted = asyncio.Event()  # our answer to their INVITE was acknowledged
        self._consultations: list[Call] = []
        self._referred_codes: list[int] = []
        self._proceeding = Happening(f"{who}: the PBX takes it")
        self._ringing = Happening(f"{who}: the far end rings")
        self._answered = Happening(f"{who}: answered")
        self._refused = Happening(f"{who}: refused")
        self._ended = Happening(f"{who}: hung up")
        self._exchange.calls[call_id] = self

    # Making a call

    def begin(self) -> None:
        self._invite = self._request("INVITE", body=self._sdp())
        self._exchange.run(self._invite_and_wait(self._invite), name="invite")

    async def _invite_and_wait(self, invite: Message) -> None:
        final = await self._exchange.ask(invite, self._progress)
        if final.code < 300:
            self.sound_to = media_address(final.body) or self.sound_to
            self._answered.happened()
        else:
            self.reason = final.code
            self.sound_to = None
            self._refused.happened()
            self._ended.happened()

    def _progress(self, answer: Message) -> None:
        self._proceeding.happened()
        if tag_of(answer.get("To")):
            self._theirs = answer.get("To")
        if answer.body:
            self.sound_to = media_address(answer.body)
        if answer.code == 180:
            self._ringing.happened()

    def acknowledge(self, answer: Message) -> None:
        """Every final answer to an INVITE gets its ACK, repetitions too."""
        number = answer.get("CSeq").split()[0]
        if answer.code < 300:
            self._theirs, self._target = answer.get("To"), answer.contact or self._target
            ack = self._request("ACK", cseq=number)
        else:
            ack = self._request("ACK", cseq=number, branch=answer.branch)
            ack.headers = [(name, answer.get("To") if name == "To" else value) for name, value in ack.headers]
        self._exchange.send(ack)

    async def until_ringing(self, seconds: float = PATIENCE_SECONDS) -> datetime:
        return await self._ringing.wait(seconds)

    async def until_answered(self, seconds: float = PATIENCE_SECONDS) -> datetime:
        return await self._answered.wait(seconds)

    async def until_refused(self, seconds: float = PATIENCE_SECONDS) -> datetime:
        return await self._refused.wait(seconds)

    async def until_ended(self, seconds: float = PATIENCE_SECONDS) -> datetime:
        """Hung up by the other side, cancelled or refused."""
        return await self._ended.wait(seconds)

    @property
    def is_over(self) -> bool:
        return self._ended.at is not None

    @property
    def answered_at(self) -> datetime:
        assert self._answered.at is not None, "nobody answered"
        return self._answered.at

    @property
    def rang_at(self) -> datetime:
        assert self._ringing.at is not None, "it did not ring"
        return self._ringing.at

    @property
    def ended_at(self) -> datetime:
        assert self._ended.at is not None, "it goes on"
        return self._ended.at

    # Taking a call

    def ring(self) -> datetime:
        self._answer_invite(180, "Ringing")
        return self._ringing.happened()

    def announce(self) -> datetime:
        """183: something is to be heard before anybody answers."""
        at = now()
        self._answer_invite(183, "Session Progress", body=self._sdp())
        return at

    async def answer(self) -> datetime:
        """Pick up; the moment at which the PBX was told."""
        at = self._answered.happened()
        self._answer_invite(200, "OK", body=self._sdp())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._accepted.wait()
        return at

    def refuse(self, code: int = 486, reason: str = "Busy Here") -> datetime:
        self.sound_to = None
        self._answer_invite(code, reason)
        return self._ended.happened()

    def redirect(self, number: str) -> datetime:
        """302: send the caller elsewhere."""
        host, port = self._exchange.pbx
        self.sound_to = None
        self._answer_invite(302, "Moved Temporarily", contact=f"<sip:{number}@{host}:{port}>")
        return self._ended.happened()

    def _answer_invite(self, code: int, reason: str, *, body: str = "", contact: str = "") -> None:
        assert self._invite is not None
        assert not self._is_ours
        extra = [("Contact", contact or self._contact())]
        if body:
            extra.append(("Content-Type", "application/sdp"))
        answer = self._invite.answer(code, reason, to_tag=tag_of(self._ours), extra=extra)
        answer.body = body
        if code < 200:
            self._exchange.send(answer)
        else:
            self._exchange.repeat(answer, self._accepted)

    # What both sides can do

    async def hang_up(self) -> datetime:
        """BYE, or CANCEL of a call that was not answered yet."""
        if self._is_ours and self._answered.at is None:
            return await self._cancel()
        at = self._ended.happened()
        self.sound_to = None
        await self._exchange.ask(self._next("BYE"))
        return at

    async def make_over(self) -> None:
        """End it if it has not ended, and send no more sound."""
        self.sound_to = None
        if self.is_over:
            return
        if not self._is_ours and not self._accepted.is_set():
            self.refuse(480, "Temporarily Unavailable")
            return
        with contextlib.suppress(AssertionError, TimeoutError):
            await self.hang_up()

    async def _cancel(self) -> datetime:
        await self._proceeding.wait()
        assert self._invite is not None
        at = now()
        cancel = Message(f"CANCEL {self._invite.first_line.split()[1]} SIP/2.0")
        cancel.headers = [
            (name, value) for name, value in self._invite.headers if name in {"Via", "From", "To", "Call-ID", "CSeq"}
        ]
        cancel.headers = [(n, v.replace("INVITE", "CANCEL") if n == "CSeq" else v) for n, v in cancel.headers]
        self._exchange.repeat(cancel, self._ended.event)
        await self._ended.wait()
        return at

    async def hold(self) -> datetime:
        return await self._change_sound("sendonly")

    async def unhold(self) -> datetime:
        return await self._change_sound("sendrecv")

    async def _change_sound(self, direction: str) -> datetime:
        self._direction = direction
        at = now()
        answer = await self._exchange.ask(self._next("INVITE", body=self._sdp()))
        assert answer.code == 200, answer.first_line
        return at

    async def press(self, digits: str) -> datetime:
        """DTMF; the moment of the last digit."""
        at = now()
        for digit in digits:
            at = now()
            info = self._next("INFO", body=f"Signal={digit}\r\nDuration=100\r\n", kind="application/dtmf-relay")
            answer = await self._exchange.ask(info)
            assert answer.code == 200, answer.first_line
            await asyncio.sleep(DIGIT_SECONDS)
        return at

    async def refer(self, number: str) -> datetime:
        """A blind transfer: the other side shall call `number`."""
        return await self._refer(f"<{self._uri(number)}>")

    async def refer_replaces(self, other: "Call") -> datetime:
        """An attended transfer: the other side of this call shall take our place in `other`."""
        self._consultations.append(other)
        replaces = f"{other._call_id};to-tag={tag_of(other._theirs)};from-tag={tag_of(other._ours)}"
        return await self._refer(f"<{uri_of(other._theirs).partition('?')[0]}?Replaces={quote(replaces, safe='')}>")

    async def _refer(self, to: str) -> datetime:
        at = now()
        answer = await self._exchange.ask(self._next("REFER", extra=[("Refer-To", to), ("Referred-By", self._ours)]))
        assert answer.code == 202, answer.first_line
        return at

    def _uri(self, number: str) -> str:
        host, port = self._exchange.pbx
        return f"sip:{number}@{host}:{port}"

    # What the PBX asks of us

    def requested(self, request: Message) -> None:
        match request.method:
            case "ACK":
                self._accepted.set()
            case "INVITE":
                self._sound_changed(request)
            case "CANCEL":
                self._exchange.send(request.answer(200, "OK"))
                self.sound_to = None
                self._ended.happened()
                self._answer_invite(487, "Request Terminated")
            case "BYE":
                self._exchange.send(request.answer(200, "OK"))
                self.sound_to = None
                self._ended.happened()
            case "NOTIFY":
                self._exchange.send(request.answer(200, "OK"))
                self._notified(request)
            case _:
                self._exchange.send(request.answer(200, "OK"))

    def _sound_changed(self, request: Message) -> None:
        self.sound_to = media_address(request.body) or self.sound_to
        self._accepted.clear()
        extra = [("Contact", self._contact()), ("Content-Type", "application/sdp")]
        answer = request.answer(200, "OK", extra=extra)
        answer.body = self._sdp(_MIRRORED[direction_of(request.body)])
        self._exchange.repeat(answer, self._accepted)

    def _notified(self, request: Message) -> None:
        if request.body.startswith("SIP/2.0 "):
            self._referred_codes.append(int(request.body.split()[1]))
        if "terminated" in request.get("Subscription-State") and 200 in self._referred_codes:
            self._exchange.run(self._leave_after_a_transfer(), name="hang up after a transfer")

    async def _leave_after_a_transfer(self) -> None:
        """The PBX waits for the phone to hang up, and phones do so when they hear that it went well.

        A consultation that nobody answered the PBX ends by itself; it may get lost in a CANCEL of ours.
        """
        if not self.is_over:
            await self.hang_up()
        await asyncio.sleep(_CONSULTATION_STAYS_SECONDS)
        for call in self._consultations:
            if not call.is_over and call._answered.at is not None:
                await call.hang_up()

    # Pieces of requests

    def _next(
        self, method: str, *, body: str = "", kind: str = "", extra: list[tuple[str, str]] | None = None
    ) -> Message:
        self._cseq += 1
        return self._request(method, body=body, kind=kind, extra=extra)

    def _request(
        self,
        method: str,
        *,
        body: str = "",
        kind: str = "",
        cseq: str = "",
        branch: str = "",
        extra: list[tuple[str, str]] | None = None,
    ) -> Message:
        host, port = self._exchange.address
        headers = [
            ("Via", f"SIP/2.0/UDP {host}:{port};rport;branch={branch or 'z9hG4bK' + secrets.token_hex(8)}"),
            ("Max-Forwards", "70"),
            ("From", self._ours),
            ("To", self._theirs),
            ("Call-ID", self._call_id),
            ("CSeq", f"{cseq or self._cseq} {method}"),
            ("Contact", self._contact()),
            *(extra or []),
        ]
        if body:
            headers.append(("Content-Type", kind or "application/sdp"))
        return Message(f"{method} {self._target} SIP/2.0", headers, body)

    def _contact(self) -> str:
        host, port = self._exchange.address
        return f"<sip:{self.phone.number}@{host}:{port}>"

    def _sdp(self, direction: str = "") -> str:
        self._version += 1
        host, port = self._exchange.sound_address
        return sdp(host=host, port=port, version=self._version, direction=direction or self._direction)
