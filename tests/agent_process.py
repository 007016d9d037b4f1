"""The real agent as a process of its own, for tests that break it from outside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from agent.cli.client import RunningAgent
from agent.cli.faults import NotRunning
from tests.pbx.waiting import wait_until

RUN = [str(Path(sys.executable).with_name("edge-agent"))]
# Settings for what needs no calls: nobody listens on that port.
WITHOUT_PBX: Final = """
site = "here"
[[pbx]]
name = "pbx"
kind = "asterisk"
host = "127.0.0.1"
port = 1
username = "u"
secret = "p"
"""


class AgentProcess:
    """`edge-agent run` over a settings file in `directory`; started and killed as a test likes."""

    def __init__(self, directory: Path, settings: str, *, environ: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.settings_file = directory / "agent.toml"
        self.log_file = directory / "agent.log"
        self.write_settings(settings)
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def write_settings(self, settings: str) -> None:
        """State and socket stay in the test's directory."""
        head = f'state_directory = "{self.directory / "state"}"\nruntime_directory = "{self.directory / "run"}"\n'
        self.settings_file.write_text(head + settings, encoding="utf-8")
        self.settings_file.chmod(0o600)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill it if it runs: `closing(agent)` where a test starts it itself."""
        if self._process is not None:
            self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def database(self) -> Path:
        return self.directory / "state" / "edge.db"

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*RUN, "run", "--config", str(self.settings_file)], stdout=log, stderr=log, env=self._environ
            )

    def start(self, *, seconds: float = 20, connected: bool = True) -> None:
        """Until it answers and hears its PBX."""
        self.launch()

        def up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"the agent ended:\n{self.log()[-3000:]}"
            try:
                status = self.status()
            except NotRunning:
                return False
            return not connected or all(pbx["state"] == "connected" for pbx in status["pbx"])

        wait_until(up, what="the agent up and connected", seconds=seconds)

    def wait(self, *, seconds: float = 20) -> int:
        """Until it ends by itself; the exit code, negative for a signal."""
        assert self._process is not None
        process, self._process = self._process, None
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """SIGKILL, as the machine's worst day would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return self._signal(signal.SIGTERM)

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def ask(self, path: str) -> Any:  # Any: JSON
        return RunningAgent(self.directory / "run" / "api.sock").get(path)

    def status(self) -> Any:  # Any: JSON
        return self.ask("/v1/status")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `edge-agent` command over the same settings."""
        return subprocess.run(
            [*RUN, *arguments, "--config", str(self.settings_file)],
            capture_output=True,
            text=True,
            env=self._environ,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[dict[str, Any]]:  # Any: JSON
        """Every call the command line exports."""
        done = self.command("calls", "export", "--format", "jsonl")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
