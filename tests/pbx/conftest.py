"""A real Asterisk for each test that asks for one, with its phones and trunks."""

import os
from collections.abc import Iterator

import pytest

from tests.pbx.asterisk import VERSIONS, Asterisk, RigUnavailable, root_of_asterisk
from tests.pbx.sipp import sipp_is_installed


@pytest.fixture(scope="session")
def rig() -> None:
    """Skips where the real parts are missing; in CI their absence is a failure."""
    try:
        for version in VERSIONS:
            root_of_asterisk(version)
        if not sipp_is_installed():
            raise RigUnavailable("no SIPp; install Debian's sip-tester")
    except RigUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def asterisk(rig: None, request: pytest.FixtureRequest) -> Iterator[Asterisk]:
    """The newest Asterisk; a test that is marked with `on_every_version` gets each in turn."""
    with Asterisk(version=getattr(request, "param", VERSIONS[0])) as asterisk:
        yield asterisk
