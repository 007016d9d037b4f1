"""Every line to a simulated PBX ends with its test."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.simulator.lines import OPENED


@pytest.fixture(autouse=True)
async def _lines_are_closed() -> AsyncIterator[None]:
    yield
    while OPENED:
        await OPENED.pop().close()
