"""What systemd hears from the daemon."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[Notifier, Callable[[], list[str]]]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield Notifier({"NOTIFY_SOCKET": address}), lambda: sock.recv(4096).decode().split("\n")


Manager = tuple[Notifier, Callable[[], list[str]]]


def test_ready_comes_with_its_status_in_one_message(manager: Manager) -> None:
    notifier, heard = manager
    notifier.ready("captures main\nand\tmore")
    assert heard() == ["READY=1", "STATUS=captures main and more"]


def test_each_other_word_is_systemds(manager: Manager) -> None:
    notifier, heard = manager
    notifier.status("3 calls, çağrı")
    notifier.watchdog()
    notifier.stopping()
    assert [heard() for _ in range(3)] == [["STATUS=3 calls, çağrı"], ["WATCHDOG=1"], ["STOPPING=1"]]


def test_reloading_tells_the_monotonic_time(manager: Manager) -> None:
    notifier, heard = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    word, moment = heard()
    assert word == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_an_abstract_socket_is_reached() -> None:
    name = f"sentiric-edge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).watchdog()
        assert sock.recv(100) == b"WATCHDOG=1"


def test_nothing_happens_without_systemd_or_when_it_is_gone(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_a_full_socket_does_not_hold_up_the_daemon(manager: Manager) -> None:
    notifier, heard = manager
    for number in range(2000):
        notifier.status(f"{number}")
    assert heard() == ["STATUS=0"]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_patience_is_known_only_to_the_process_it_watches(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environ).watchdog_seconds() == seconds
