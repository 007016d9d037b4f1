"""What the crash tests share: one process that forks agents, and a centre per test."""

from collections.abc import AsyncIterator

import pytest

from tests.crash.nursery import Nursery


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    """A process that forks agents."""
    async with Nursery.open() as nursery:
        yield nursery
