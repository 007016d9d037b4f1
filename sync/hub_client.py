"""The way to the centre through its hub: HTTPS, wire version 1 of docs/hub.md."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
from pydantic import SecretStr

from config.credentials import read_secret
from config.files import Unreadable
from config.settings import CentralSettings
from sync import wire
from sync.errors import BatchTooLarge, NotUnderstood, SyncError, UplinkRefused, UplinkUnavailable
from sync.hub_answers import Answer, explain, explain_connecting, read, unpacked
from sync.pace import LineShare
from sync.records import Batch, CallRecord, DayDigest, Greeting, HeldCall, Receipt, RecordReceipt, Verdict, Welcome

_CONNECT_SECONDS: Final = 15.0
# Longer than the pause between two renewals of the lease, so that an idle site keeps its connection.
_KEEP_ALIVE_SECONDS: Final = 90.0
_MAX_ANSWER_BYTES: Final = 8 * 2**20
_LARGEST_CREDENTIAL: Final = 4096
_OK: Final = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A hub and the way to it. The credential's file is read at each greeting, so that a new one needs no restart."""

    url: str
    credential: SecretStr | None = None
    credential_file: Path | None = None
    tls_ca_file: Path | None = None
    proxy: str | None = None  # None: as the environment says; "none": none
    timeout_seconds: float = 30.0
    max_kilobits_per_second: float | None = None  # of batches; None: as much as the line brings

    @property
    def label(self) -> str:
        """Where it is, for people."""
        return self.url

    def read_credential(self) -> str:
        """What this site shows the hub. Raises UplinkRefused without one."""
        if self.credential_file is not None and (self.credential is None or self.credential_file.exists()):
            try:
                return _checked(read_secret(self.credential_file))
            except Unreadable as exc:
                raise UplinkRefused(f"no credential for the hub: {exc}; run edge-agent enroll {self.url}") from None
        if self.credential is None:
            raise UplinkRefused(f"no credential for the hub; run edge-agent enroll {self.url}")
        return _checked(self.credential.get_secret_value())

    def tls(self) -> ssl.SSLContext:
        """Certificates are verified, always: by the pinned authority alone if there is one, else by the system's."""
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
        except OSError as exc:
            why = exc.strerror or "it holds no certificate in PEM form"
            raise UplinkRefused(f"cannot use the CA file {self.tls_ca_file}: {why}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, where no proxy leads."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def _checked(credential: str) -> str:
    """It becomes a header, so nothing in it may end one."""
    if len(credential) > _LARGEST_CREDENTIAL or not credential.isascii() or not credential.isprintable():
        raise UplinkRefused("what stands where the hub's credential should be is none; run edge-agent enroll")
    return credential


def address_of(settings: CentralSettings, *, credential_file: Path) -> HubAddress:
    """The hub that the settings name."""
    return HubAddress(
        settings.url,
        credential=settings.credential,
        credential_file=credential_file,
        tls_ca_file=settings.tls_ca_file,
        proxy=settings.proxy,
        timeout_seconds=settings.timeout_seconds,
        max_kilobits_per_second=settings.max_kilobits_per_second,
    )


class HubClient:
    """Asks one hub, on connections that are kept. Every question has the address's time, and its answer a bound."""

    def __init__(self, address: HubAddress) -> None:
        self._address = address
        self._client: httpx.AsyncClient | None = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        credential: str | None = None,
        body: bytes | None = None,
        is_packed: bool = False,
        query: Mapping[str, str] | None = None,
        share: LineShare | None = None,
    ) -> bytes:
        """The answer's body; `is_packed` tells that ours is zstd, `share` how fast it may go. Raises what docs/hub.md
        makes of all but 200."""
        headers = {"Accept-Encoding": "zstd"}
        if credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        if is_packed:
            headers["Content-Encoding"] = "zstd"
        content: bytes | AsyncIterator[bytes] | None = body
        if share is not None and body is not None:
            headers["Content-Length"] = str(len(body))  # else it would go in chunks
            await share.turn()
            content = share.spread(body)
        async with self._asked():
            client = self._opened()
            url = f"{self._address.url}{wire.PREFIX}{path}"
            request = client.build_request(method, url, content=content, headers=headers, params=query or None)
            response = await client.send(request, stream=True)
            try:
                answer = await self._read(response)
            finally:
                await response.aclose()
        if answer.status == _OK:
            return answer.body
        raise explain(answer, label=self._address.label)

    async def close(self) -> None:
        """Let go of connections; they are made anew if needed."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            address = self._address
            named = address.proxy if address.proxy != "none" and not address.is_here else None
            self._client = httpx.AsyncClient(
                verify=address.tls(),
                proxy=named,
                trust_env=address.proxy is None and not address.is_here,
                timeout=httpx.Timeout(address.timeout_seconds, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(keepalive_expiry=_KEEP_ALIVE_SECONDS),
            )
        return self._client

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        label, seconds = self._address.label, self._address.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise UplinkUnavailable(f"{label} did not answer within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as exc:
            # The cause is left out: it may hold the request with its credential.
            raise explain_connecting(exc, label=label) from None

    async def _read(self, response: httpx.Response) -> Answer:
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > _MAX_ANSWER_BYTES:
                raise UplinkUnavailable(f"{self._address.label} answers with more than any answer can be")
            parts.append(part)
        try:
            body = unpacked(b"".join(parts), response.headers.get("content-encoding"), max_bytes=_MAX_ANSWER_BYTES)
        except ValueError as exc:
            raise UplinkUnavailable(f"{self._address.label} answers with garbage: {exc}") from None
        return Answer(response.status_code, response.headers, body)


async def enrol(address: HubAddress, code: str, *, site: str | None, host: str) -> wire.Enrolled:
    """Give the hub a one-time code and take the site's credential. Raises UplinkUnavailable and UplinkRefused."""
    body = orjson.dumps({"code": code, "host": host} | ({"site": site} if site else {}))
    return await _asked_once(address, "/enrol", wire.decode_enrolled, body=body)


async def rotate(address: HubAddress) -> str:
    """A new credential; the old one works until the new one was used. Raises as `enrol` does."""
    return await _asked_once(
        address, "/credential/rotate", wire.decode_credential, credential=address.read_credential()
    )


async def _asked_once(
    address: HubAddress,
    path: str,
    decode: Callable[[bytes], T],
    *,
    credential: str | None = None,
    body: bytes | None = None,
) -> T:
    hub = HubClient(address)
    try:
        told = await hub.ask("POST", path, credential=credential, body=body)
    finally:
        await hub.close()
    return read(told, decode, label=address.label)


class HubUplink:
    """An Uplink that speaks with a hub."""

    def __init__(self, address: HubAddress, *, lanes: int) -> None:
        self._address = address
        self._hub = HubClient(address)
        self._lanes = lanes
        self._share = LineShare(address.max_kilobits_per_second) if address.max_kilobits_per_second else None
        self._credential: str | None = None
        self._max_bytes = _MAX_ANSWER_BYTES

    @property
    def lanes(self) -> int:
        """As many as the settings allow: a site's batches are stored one by one, but the line is never idle."""
        return self._lanes

    async def greet(self, greeting: Greeting) -> Welcome:
        """See `sync.uplink.Uplink`."""
        self._credential = None
        try:
            welcome = await self._told("POST", "/handshake", wire.decode_welcome, body=wire.encode_greeting(greeting))
        except SyncError:
            await self._hub.close()  # the next greeting reads the CA file again, too
            raise
        self._max_bytes = welcome.max_bytes
        return welcome

    async def send(self, batch: Batch) -> Receipt:
        """See `sync.uplink.Uplink`. A record that JSON cannot carry is rejected here, and the others go."""
        packed = await asyncio.to_thread(_pack, batch)
        try:
            return await self._send(packed)
        except NotUnderstood:
            # One record that is no JSON makes the whole body unreadable. It is looked for only then: that takes longer
            # than anything else which is done to a record here.
            packed = await asyncio.to_thread(_pack, batch, is_checked=True)
            if not packed.refused:
                raise
            return await self._send(packed)

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """See `sync.uplink.Uplink`."""
        query = {"first": first.isoformat(), "last": last.isoformat()}
        return await self._told("GET", "/reconcile/days", wire.decode_days, query=query)

    async def calls(self, tenant: str, day: date, *, after: str, limit: int) -> Sequence[HeldCall]:
        """See `sync.uplink.Uplink`."""
        query = {"tenant": tenant, "day": day.isoformat(), "after": after, "limit": str(limit)}
        return await self._told("GET", "/reconcile/calls", wire.decode_calls, query=query)

    async def close(self) -> None:
        """Let go of connections."""
        await self._hub.close()

    async def _send(self, packed: "_Packed") -> Receipt:
        if packed.size > self._max_bytes:
            calls = len(packed.sent)
            told = f"{calls} calls are" if calls > 1 else "the call is"
            raise BatchTooLarge(f"{told} {packed.size} bytes, and the hub takes {self._max_bytes}")
        if not packed.sent:
            return Receipt(packed.refused)
        receipt = await self._told(
            "POST", "/batches", wire.decode_receipt, body=packed.body, is_packed=True, share=self._share
        )
        if any((one.call_sid, one.revision) not in packed.sent for one in receipt.verdicts):
            raise UplinkUnavailable(f"{self._address.label} answers about calls that were not sent")
        return Receipt([*receipt.verdicts, *packed.refused], receipt.number)

    async def _told(
        self,
        method: str,
        path: str,
        decode: Callable[[bytes], T],
        *,
        body: bytes | None = None,
        is_packed: bool = False,
        query: Mapping[str, str] | None = None,
        share: LineShare | None = None,
    ) -> T:
        if self._credential is None:
            self._credential = self._address.read_credential()
        told = await self._hub.ask(
            method, path, credential=self._credential, body=body, is_packed=is_packed, query=query, share=share
        )
        return read(told, decode, label=self._address.label)


@dataclass(frozen=True, slots=True)
class _Packed:
    """A batch as a body, its bytes before that, what it holds, and verdicts on records that no body can hold."""

    body: bytes
    size: int
    sent: Set[tuple[str, int]]
    refused: Sequence[RecordReceipt]


def _pack(batch: Batch, *, is_checked: bool = False) -> _Packed:
    records, sent, refused = [], set(), []
    for record in batch.for_hub:
        try:
            if isinstance(record, CallRecord):
                text = wire.encode_record(record)
            else:
                text = record.json
                if is_checked:
                    wire.check_record(text)
            records.append(text)
            sent.add((record.call_sid, record.revision))
        except wire.NotEncodable as exc:
            refused.append(RecordReceipt(record.call_sid, record.revision, Verdict.REJECTED, "not_encodable", str(exc)))
    body, size = wire.compress(wire.encode_batch(batch, records))
    return _Packed(body, size, sent, refused)
