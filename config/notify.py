"""Telling systemd how the daemon is, by its notification socket; nothing happens where there is none."""

import os
import socket
import time
from collections.abc import Mapping

_MICROSECONDS = 1_000_000


class Notifier:
    """The way to the service manager that `NOTIFY_SOCKET` names."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        address = environ.get("NOTIFY_SOCKET", "")
        # A name with '@' is in the abstract name space, which the kernel marks with a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str = "") -> None:
        """The daemon captures, or has taken up its new settings."""
        self._send("READY=1", f"STATUS={_one_line(status)}" if status else "")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def reloading(self) -> None:
        """New settings are being read; `ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        """The daemon drains and ends."""
        self._send("STOPPING=1", f"STATUS={_one_line(status)}" if status else "")

    def watchdog(self) -> None:
        """The daemon is alive; to be sent only by what proves it."""
        self._send("WATCHDOG=1")

    def watchdog_seconds(self) -> float | None:
        """Within how long systemd wants to hear `watchdog`; None if it does not watch this process."""
        pid = self._environ.get("WATCHDOG_PID")
        microseconds = self._environ.get("WATCHDOG_USEC", "")
        if (pid and pid != str(os.getpid())) or not microseconds.isdecimal() or int(microseconds) == 0:
            return None
        return int(microseconds) / _MICROSECONDS

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line for line in lines if line).encode("utf-8", "replace")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # A full or closed socket must not hold up or end the daemon; systemd's own timeouts speak then.
            sock.setblocking(False)
            try:
                sock.sendto(message, self._address)
            except OSError:
                return


def _one_line(text: str) -> str:
    return " ".join(text.split())
