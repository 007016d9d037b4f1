"""A scripted receptionist: a service beside the agent, in about a hundred lines.

    python -m examples.receptionist --tenant acme          # beside a running agent; the token is in $EDGE_TOKEN
    python -m examples.receptionist --demo                 # all of it on this machine, with a simulated PBX

It waits for the next call of its tenant, notes what it is busy with and what is said, and sums up after the hangup.
A real one would hear and speak where this one reads from its script.
"""

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from agent.client import AsyncEdgeClient, CallContext
from agent.client.requests import DEFAULT_SOCKET

SCRIPT: Final = (
    ("assistant", "Acme Lokantası, iyi günler. Nasıl yardımcı olabilirim?"),
    ("caller", "Yarın akşam sekize dört kişilik bir masa istiyorum."),
    ("assistant", "Yedi numaralı masa boş. Adınıza ayırıyorum."),
    ("caller", "Çok teşekkürler, iyi günler."),
)


class Receptionist:
    """Answers every call of a tenant, several at once."""

    def __init__(
        self, client: AsyncEdgeClient, *, tenant: str, pause_seconds: float = 1.0, say: Callable[[str], None] = print
    ) -> None:
        self._client = client
        self._tenant = tenant
        self._pause_seconds = pause_seconds
        self._say = say

    async def serve(self) -> None:
        """Without end."""
        async with asyncio.TaskGroup() as tasks:
            async for call in self._client.new_calls(tenant=self._tenant):
                tasks.create_task(self.answer(call))

    async def answer(self, call: CallContext) -> None:
        """One call, from its ring to its summary."""
        sid, client = call.call_sid, self._client
        self._say(f"{sid}: rings")
        task = (await client.push_task(sid, "table_reservation", {"step": "greeting"})).ids[0]
        hangup = asyncio.create_task(self._hangup(sid))
        for speaker, text in SCRIPT:
            begun = datetime.now(UTC)
            await asyncio.wait([hangup], timeout=self._pause_seconds)  # so long it takes to say
            if hangup.done():
                break
            await client.say(sid, speaker, text, language="tr", started_at=begun, ended_at=datetime.now(UTC))
            self._say(f"{sid}: {speaker}: {text}")
            if speaker == "caller":
                await self._book(sid, task)
        await hangup
        heard = [entry for entry in (await client.context(sid)).interactions if entry["type"] == "utterance"]
        await client.append(
            sid, {"type": "summary", "speaker": "assistant", "text": f"{len(heard)} sentences, table 7"}
        )
        await client.pop_task(sid, task)
        self._say(f"{sid}: summed up")

    async def _book(self, sid: str, task: str) -> None:
        """What a real one would ask its booking system."""
        tool = {"type": "tool_call", "tool": "tables.find", "arguments": {"people": 4}, "result": {"table": 7}}
        await self._client.append(sid, tool)
        await self._client.update_task(sid, task, state_data={"step": "booked", "table": 7})
        await self._client.set_variables(sid, table=7, people=4)

    async def _hangup(self, sid: str) -> None:
        """Return when the call is over. A stream that lost its place says resync: then the context tells."""
        async with aclosing(self._client.events(call_sid=sid)) as events:
            async for event in events:
                if event.kind == "call.ended":
                    return
                if event.kind == "resync" and not (await self._client.context(sid)).is_live:
                    return


async def run(arguments: argparse.Namespace) -> None:
    """Beside a running agent."""
    async with AsyncEdgeClient(arguments.socket, token=os.environ.get("EDGE_TOKEN")) as client:
        await Receptionist(client, tenant=arguments.tenant).serve()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenant", default="acme", help="whose calls")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="the agent's socket for services")
    parser.add_argument("--demo", action="store_true", help="with a PBX, an agent, a hub and a PostgreSQL of its own")
    chosen = parser.parse_args(arguments)
    if chosen.demo:
        from examples.whole_path import show

        asyncio.run(show())
    else:
        asyncio.run(run(chosen))


if __name__ == "__main__":
    main()
