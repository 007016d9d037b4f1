"""The receptionist's whole path on one machine: simulated PBX, real agent and hub, SQLite here, PostgreSQL there."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import asyncpg

from agent.cli.demonstration.parts import Parts, running_parts
from agent.client import AsyncEdgeClient
from agent.simulator.plan import CallPlan
from agent.simulator.scenarios import plan_call
from examples.receptionist import SCRIPT, Receptionist

TENANT: Final = "acme"
# Of real lengths of time: the call takes some seconds instead of a minute.
_PACE: Final = 0.2
# What the trunk's own tracing would send along in a SIP header.
_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_ARRIVES_SECONDS: Final = 30.0
_LINES: Final = """SELECT coalesce(said.value->>'speaker', ''), said.value->>'text' FROM call,
    jsonb_array_elements(call.full_transcript::jsonb) WITH ORDINALITY AS said(value, place)
    WHERE call_sid = $1 ORDER BY place"""
_NOTES: Final = "SELECT count(*) FROM interaction JOIN call ON call.id = interaction.call_id WHERE call_sid = $1"


async def show() -> None:
    """One call, and what is left of it; everything else is taken away again."""
    print("Starting a PostgreSQL, a hub, the agent and a simulated PBX …", flush=True)
    async with running_parts(pace=_PACE, keep=None) as parts:
        token = (await _edge_agent(parts, "services", "add", "receptionist", "--tenant", TENANT)).strip()
        async with AsyncEdgeClient(parts.settings.services_socket_file, token=token) as client:
            receptionist = Receptionist(client, tenant=TENANT, pause_seconds=0.2)
            start = await client.now()
            parts.simulator.place(_plan())
            async with aclosing(client.new_calls(tenant=TENANT, after=start)) as calls:
                call = await anext(calls)
            await receptionist.answer(call)
            handed_on = (await client.context(call.call_sid)).traceparent
        print(f"\nThe call came with the traceparent  {_TRACEPARENT}\nservices hand on, as its child,     {handed_on}")
        await _show_both(parts, call.call_sid)


async def _show_both(parts: Parts, sid: str) -> None:
    print("\nIn SQLite on this site (edge-agent calls show SID --transcript):\n")
    print(await _edge_agent(parts, "calls", "show", sid, "--transcript"))
    print("In the central PostgreSQL:\n")
    said, notes = await _central(parts, sid)
    for speaker, text in said:
        print(f"{speaker:<10}{text}")
    print(f"\n{notes} interactions in all, with what was asked of the booking system and the summary.")


async def _central(parts: Parts, sid: str) -> tuple[list[tuple[str, str]], int]:
    """What the centre holds, once all of it is there: sentences, two questions to the booking system, a summary."""
    wanted = len(SCRIPT) + 3
    async with asyncio.timeout(_ARRIVES_SECONDS):
        connection = await asyncpg.connect(parts.postgres.dsn())
        try:
            while (notes := await connection.fetchval(_NOTES, sid)) < wanted:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
            return [(row[0], row[1]) for row in await connection.fetch(_LINES, sid)], int(notes)
        finally:
            await connection.close()


def _plan() -> CallPlan:
    """Somebody calls one of the tenant's numbers, and the call lasts long enough for the script."""
    plans = (plan_call("inbound_answered", seed) for seed in range(1000))
    plan = next(plan for plan in plans if plan.tenant.name == TENANT and plan.talk_seconds > 15)
    return replace(plan, traceparent=_TRACEPARENT)


async def _edge_agent(parts: Parts, *arguments: str) -> str:
    """A command of the operator's."""
    file = parts.settings.state_directory.parent / "agent.toml"
    program = (sys.executable, "-c", "from agent.cli.main import main; main()")
    process = await asyncio.create_subprocess_exec(
        *program, *arguments, "--config", str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode(errors="replace"))
    return said.decode()
