"""What docs/live-context.md shows is so: its commands change a context on a real Valkey, its programs can be read."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from agent.client import AsyncEdgeClient
from agent.live.store import ContextStore
from tests.unit.live.contexts import facts
from tests.valkey_server import Valkey, valkey, valkey_server

__all__ = ["valkey", "valkey_server"]

DOCUMENT = (Path(__file__).parents[3] / "docs" / "live-context.md").read_text("utf-8")
CALL = facts(17)
# What would tell of other tenants, or harm them.
_OF_OTHERS = (
    "GET smcp:globex:call:x", "SMEMBERS smcp:globex:live", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "PUBSUB CHANNELS",
    "PUBLISH smcp:globex:changes x", "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "CLIENT LIST", "CLIENT KILL ID 1", "INFO",
    "CONFIG GET *", "MONITOR", "EVAL 1 0",
)  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


async def test_the_commands_change_a_context_as_a_user_who_may_touch_one_tenant_only(valkey: Valkey) -> None:
    (acl,) = re.findall(r"^    (ACL SETUSER .*)$", DOCUMENT, flags=re.MULTILINE)
    assert valkey.say(*shlex.split(acl)) == b"+OK\r\n"
    async with ContextStore.open(valkey.settings()) as store:
        await store.put_facts(CALL)
        async with Redis(unix_socket_path=str(valkey.socket_file), username="svc", password="PASSWORD") as redis:
            channel = redis.pubsub()
            await channel.subscribe("smcp:acme:changes")
            answers = await _answers(redis, blocks("redis")[0])
            told = [await channel.get_message(timeout=5) for _ in range(2)][1]
            for refused in _OF_OTHERS:
                with pytest.raises(NoPermissionError):
                    await redis.execute_command(*refused.split())  # type: ignore[no-untyped-call]  # the library's own
            await channel.aclose()  # type: ignore[no-untyped-call]  # the library's own
        changed = await store.get("acme", CALL.call_sid)

    assert changed is not None
    assert (changed.variables, changed.revision, changed.caller_name) == ({"vip": True}, 2, CALL.caller_name)
    assert told is not None
    assert json.loads(told["data"]) == {"call_sid": CALL.call_sid, "revision": 2, "state": "ringing"}
    assert answers[-1] == [b"OK", 1]


async def _answers(redis: Redis, commands: str) -> list[Any]:  # Any: what the server says
    """Each line on one connection, with what the text says put in place of the words in capitals."""
    answers: list[Any] = []
    values = {"SID": CALL.call_sid}
    async with redis.client() as connection:
        for line in commands.splitlines():
            words = [_filled(word, values) for word in line.split()]
            answers.append(await connection.execute_command(*words))  # type: ignore[no-untyped-call]  # the library's
            if words[0] == "GET":
                context = json.loads(answers[-1])
                context["variables"]["vip"] = True
                context["revision"] += 1
                told = {name: context[name] for name in ("call_sid", "revision", "state")}
                values |= {"CONTEXT": json.dumps(context), "ANNOUNCEMENT": json.dumps(told)}
    return answers


def _filled(word: str, values: dict[str, str]) -> str:
    return re.sub("|".join(values), lambda found: values[found[0]], word)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here to read the example with")
def test_node_can_read_its_example(tmp_path: Path) -> None:
    program = tmp_path / "change.mjs"
    program.write_text(blocks("js")[0], encoding="utf-8")

    subprocess.run(["node", "--check", program], check=True, capture_output=True)


def test_the_python_example_is_ten_lines_and_uses_what_there_is() -> None:
    (text,) = blocks("python")
    used = set(re.findall(r"\bedge\.(\w+)\(", text))
    compile(text, "example", "exec")

    assert used >= {"new_calls", "push_task", "say", "set_variables", "pop_task"}
    assert [name for name in used if not hasattr(AsyncEdgeClient, name)] == []
    assert len([line for line in text.splitlines() if line.strip()]) <= 12
