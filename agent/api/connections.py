"""HTTP/1.1 with one bound more than the hub has: whoever does not read his answer is cut."""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from sync.hub.connections import bounded_protocol
from sync.hub.limits import Limits

WRITE_SECONDS: Final = 15.0


def patient_protocol(*, connections: int, write_seconds: float = WRITE_SECONDS) -> type[H11Protocol]:
    """The protocol class of a server with so many connections, that cuts readers who let answers lie for so long."""

    class Patient(bounded_protocol(Limits(connections=connections))):  # type: ignore[misc]  # made by a function
        _impatience: asyncio.TimerHandle | None = None

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._impatience is None:
                self._impatience = self.loop.call_later(write_seconds, self._cut)

        def resume_writing(self) -> None:
            self._be_patient()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._be_patient()
            super().connection_lost(exc)

        def _be_patient(self) -> None:
            if self._impatience is not None:
                self._impatience.cancel()
                self._impatience = None

    return Patient
