"""Asking the running agent, with an agent that answers as it should, or does not."""

import http.server
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cli.client import RunningAgent
from agent.cli.faults import CommandFailed, NotRunning

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def answering(file: Path, answer: Answer) -> Iterator[list[str]]:
    """A server on the socket; the requests it got."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path}")
            answer(self)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            return

        def address_string(self) -> str:
            return "socket"

    with socketserver.UnixStreamServer(str(file), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown()
            thread.join()


def says(status: int, body: bytes) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_what_the_agent_says_comes_back_as_values(tmp_path: Path) -> None:
    with answering(tmp_path / "s", says(200, '{"requeued": 1, "tenant": "şube"}'.encode())) as requests:
        agent = RunningAgent(tmp_path / "s")
        assert agent.post("/v1/quarantine/retry", call_sid="a:b:1 ü") == {"requeued": 1, "tenant": "şube"}
        agent.get("/v1/status")
    assert requests == ["POST /v1/quarantine/retry?call_sid=a%3Ab%3A1+%C3%BC", "GET /v1/status"]


def test_what_the_agent_cannot_do_is_its_own_sentence(tmp_path: Path) -> None:
    refusal = says(409, b'{"title": "No centre", "detail": "calls are kept here"}')
    with answering(tmp_path / "s", refusal), pytest.raises(CommandFailed, match=r"^calls are kept here$"):
        RunningAgent(tmp_path / "s").post("/v1/sync")


@pytest.mark.parametrize(("status", "body"), [(500, b"Internal Server Error"), (404, b"{}"), (200, b"no JSON")])
def test_an_answer_that_makes_no_sense_is_one_sentence(tmp_path: Path, status: int, body: bytes) -> None:
    sentence = re.escape(f"the agent cannot answer this (HTTP {status}); see its log")
    with answering(tmp_path / "s", says(status, body)), pytest.raises(CommandFailed, match=sentence):
        RunningAgent(tmp_path / "s").get("/v1/status")


def test_an_agent_that_breaks_off_is_one_sentence(tmp_path: Path) -> None:
    def break_off(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    with answering(tmp_path / "s", break_off), pytest.raises(CommandFailed, match="broke off"):
        RunningAgent(tmp_path / "s").get("/v1/status")


def test_an_agent_that_hangs_is_not_waited_for_without_end(tmp_path: Path) -> None:
    go_on = threading.Event()

    def hang(_: http.server.BaseHTTPRequestHandler) -> None:
        go_on.wait()

    with answering(tmp_path / "s", hang):
        with pytest.raises(CommandFailed, match="did not answer within"):
            RunningAgent(tmp_path / "s", timeout=0.05).get("/v1/status")
        go_on.set()


def test_without_a_socket_no_agent_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no agent is running"):
        RunningAgent(tmp_path / "s").get("/v1/status")
