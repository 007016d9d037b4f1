"""`edge-agent enroll` and `edge-agent credential …`: how a site gets, and renews, what it shows the hub."""

import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.cli.central_section import CentralSection
from agent.cli.faults import CommandFailed, NotRunning
from agent.cli.output import AsJson, note, say, say_json
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look
from agent.store.files import sync_directory

if TYPE_CHECKING:
    from config.settings import Settings
    from sync.hub_client import HubAddress

Keep = Callable[[str], None]

credential_app = typer.Typer(help="What this site shows the hub.", no_args_is_help=True, rich_markup_mode=None)

_CODE: Final = re.compile(r"[0-9A-Z]{16}")
_CHECK_SECONDS: Final = 15.0
_HIDDEN: Final = frozenset({"home", "root", "tmp"})  # by ProtectHome= and PrivateTmp= of the agent's unit


def enroll(
    url: Annotated[str, typer.Argument(metavar="URL", help="The hub: https://hub.example.")],
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="[CODE]", help="The one-time code. Others on this machine can see it here; else it is asked for."
        ),
    ] = None,
    *,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="The hub's certificate authority, if it is your own.")
    ] = None,
    site: Annotated[str | None, typer.Option("--site", metavar="NAME", help="Only if the code is for it.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of another centre or credential.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Take this site's credential from the hub for a one-time code, and set up the way to it.

    `edge-hub sites add NAME --tenant TENANT` makes the code. The credential is written for the agent's user alone,
    the section [central] into the settings; a running agent takes up a new credential at once.
    """
    import asyncio

    from sync.hub_client import address_of, enrol

    settings = load_to_look(file)
    if site is not None and site != settings.site:
        raise CommandFailed(f"the settings say that this is site {settings.site!r}, not {site!r}")
    section = CentralSection(file, url=url, tls_ca_file=ca.absolute() if ca else None).completed_by(settings.central)
    credential_file = _credential_file(settings)
    if not replace:
        section.refuse_another(settings.central)
        if credential_file.exists():
            raise CommandFailed(f"this site is enrolled already ({credential_file}); --replace takes a new credential")
    # What else the settings say of this hub, as its proxy, leads there now as it does later.
    present = settings.central
    central = present if present is not None and section.is_said_by(present) else section.as_settings()
    address = address_of(central, credential_file=credential_file)
    address.tls()
    if ca is not None:
        _refuse_unreadable(ca.absolute(), credential_file.parent)
    plain = _code_of(code)
    with _new_secret(credential_file) as keep:  # before the code is used up
        enrolled = asyncio.run(enrol(address, plain, site=settings.site, host=socket.gethostname()))
        if enrolled.site != settings.site:
            raise CommandFailed(
                f"the code is for site {enrolled.site!r}, and the settings say that this is {settings.site!r}; "
                "correct `site` or have a code made for it"
            )
        keep(enrolled.credential)
    has_changed = section.write(replace=replace)
    checked = _check(settings, address, needs_restart=has_changed)
    if as_json:
        say_json(
            {"site": enrolled.site, "tenants": enrolled.tenants, "credential_file": str(credential_file), **checked}
        )
        return
    say(f"This is site {enrolled.site}; it may send calls of: {', '.join(enrolled.tenants) or 'no tenant yet'}.")
    say(f"Credential: {credential_file}, for the agent's user alone.")
    say(f"Settings: {f'[central] was written into {file}' if has_changed else f'{file} says so already'}.")
    say(_CHECKED[checked["checked"]])


@credential_app.command("rotate")
def rotate_credential(*, file: ConfigFile = DEFAULT_FILE) -> None:
    """Get a new credential from the hub; the old one works until the new one is used. The agent takes it up itself."""
    import asyncio

    from sync.hub_client import address_of, rotate

    settings = load_to_look(file)
    if settings.central is None or not settings.central.is_hub:
        raise CommandFailed("the settings name no hub; see edge-agent enroll")
    target = _credential_file(settings)
    if not target.exists():
        raise CommandFailed(
            f"there is no {target}; a credential that systemd or the settings hold is to be replaced there: "
            "take a new code and run edge-agent enroll"
        )
    address = address_of(settings.central, credential_file=target)
    with _new_secret(target) as keep:
        keep(asyncio.run(rotate(address)))
    checked = _check(settings, address, needs_restart=False)
    say(f"{target} holds a new credential. {_CHECKED[checked['checked']]}")


_CHECKED: Final = {
    "by the agent": "Checked: the running agent has greeted the hub with it.",
    "restart": "Checked: the hub knows this site. Now: systemctl restart sentiric-edge-agent, which reads [central].",
    "here": "Checked: the hub knows this site. Now: systemctl start sentiric-edge-agent.",
}


def _credential_file(settings: "Settings") -> Path:
    """Where a hub's credential is or will be, also while the settings name a database."""
    return settings.credential_file.absolute()


def _refuse_unreadable(ca: Path, state_directory: Path) -> None:
    """Raise CommandFailed if the agent's user cannot read the file: with it in its settings the agent would not start.

    Its unit hides home directories and the temporary ones, whatever their modes.
    """
    try:
        user = state_directory.stat()
        hidden = not ca.resolve().is_relative_to(state_directory) and ca.resolve().parts[1] in _HIDDEN
        if os.geteuid() == 0 and user.st_uid != 0 and (hidden or not _may_read(ca.resolve(), user.st_uid, user.st_gid)):
            raise CommandFailed(f"the agent's user cannot read {ca}; put it into /etc/sentiric-edge, with chmod 644")
    except OSError as exc:
        raise CommandFailed(f"cannot look at {exc.filename}: {exc.strerror}") from None


def _may_read(file: Path, uid: int, gid: int) -> bool:
    """By the modes of the file and of the directories above it."""
    return all(
        found.st_mode & (wanted << (6 if found.st_uid == uid else 3 if found.st_gid == gid else 0))
        for found, wanted in ((file.stat(), 4), *((above.stat(), 1) for above in file.parents))
    )


def _code_of(given: str | None) -> str:
    """The code, however it is written; asked for, so that it is in no list of processes."""
    if given is None or given == "-":
        given = typer.prompt("Code", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline(1000)
    plain = re.sub(r"[\s-]", "", given or "").upper().translate(str.maketrans("OIL", "011"))
    if not _CODE.fullmatch(plain):
        raise CommandFailed("this is no enrolment code; it has 16 letters and digits, as ABCD-EFGH-JKMN-PQRS")
    return "-".join(plain[at : at + 4] for at in range(0, 16, 4))


@contextmanager
def _new_secret(target: Path) -> Iterator[Keep]:
    """Makes sure that a secret can be kept, before there is one: a file beside the target that takes its place."""
    directory = target.parent
    if not directory.is_dir():
        raise CommandFailed(f"there is no directory {directory}; start the agent once, or check state_directory")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=directory)  # for this user alone
    try:
        owner = directory.stat()
        if os.geteuid() == 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)
        yield lambda secret: _keep(handle, secret, Path(name), target)
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            os.unlink(name)


def _keep(handle: int, secret: str, new: Path, target: Path) -> None:
    os.write(handle, f"{secret}\n".encode())
    os.fsync(handle)
    new.replace(target)
    sync_directory(target.parent)


def _check(settings: "Settings", address: "HubAddress", *, needs_restart: bool) -> dict[str, str]:
    """By the running agent's own greeting if it knows the hub already, else by asking what the hub holds today."""
    import asyncio

    if not needs_restart:
        with suppress(NotRunning):
            if _greet_by_agent(settings, address):
                return {"checked": "by the agent"}
    asyncio.run(_ask_hub(address))
    return {"checked": "restart" if _is_running(settings) else "here"}


def _greet_by_agent(settings: "Settings", address: "HubAddress") -> bool:
    """Have the running agent greet the hub; False if it still runs with other settings."""
    import time

    from agent.cli.client import RunningAgent

    agent = RunningAgent(settings.socket_file)
    before = agent.get("/v1/status")["central"]
    if before["address"] != address.label:
        return False
    agent.post("/v1/sync")
    deadline = time.monotonic() + _CHECK_SECONDS
    while True:
        central = agent.get("/v1/status")["central"]
        if central["state"] in {"idle", "sending"} and central["lease_until"] != before["lease_until"]:
            return True
        if central["state"] in {"waiting", "paused"} and central["next_try_at"] != before["next_try_at"]:
            raise CommandFailed(f"the credential is kept, but the agent cannot use it yet: {central['last_error']}")
        if time.monotonic() > deadline:
            note("edge-agent: the agent has not greeted the hub yet; see edge-agent status")
            return True
        time.sleep(0.1)


def _is_running(settings: "Settings") -> bool:
    from agent.cli.client import RunningAgent

    try:
        RunningAgent(settings.socket_file).get("/v1/status")
    except CommandFailed as exc:
        return not isinstance(exc, NotRunning)
    return True


async def _ask_hub(address: "HubAddress") -> None:
    from datetime import UTC, datetime

    from sync.hub_client import HubUplink

    uplink, today = HubUplink(address, lanes=1), datetime.now(UTC).date()
    try:
        await uplink.days(today, today)
    finally:
        await uplink.close()
