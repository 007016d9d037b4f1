"""What scenarios of queues have in common: their configuration, and the words for waiting."""

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import Cast
from tests.pbx.stage.truth import seconds

TO_THE_QUEUE = "exten => 902165551ii5,1,Answer()\n same => n,Queue(6ii1)\n same => n,Hangup()"


def a_queue(number: int, *members: str, **settings: object) -> str:
    """Rings its members one after another, 2 s each, unless `settings` say otherwise."""
    usual = {"strategy": "linear", "timeout": 2, "retry": 1, "joinempty": "yes", "ringinuse": "no"}
    lines = [f"{name}={value}" for name, value in (usual | settings).items()]
    return "\n".join([f"[6ii{number}]", "musicclass=default", *lines, *(f"member=>{member}" for member in members), ""])


def queued(cast: Cast, who: Call, position: int = 1, queue: int = 1) -> str:
    return f"queued {who.phone} queue={cast.special(6, queue)} position={position}"


def left_queue(cast: Cast, who: Call, queue: int = 1) -> str:
    return f"left_queue {who.phone} queue={cast.special(6, queue)}"


def rung(missed: Call, target: Call) -> float:
    """Two rang one after the other, and nobody in between."""
    return seconds(missed.rang_at, missed.ended_at) + seconds(target.rang_at, target.answered_at)
