"""What is played, a module for each kind of feature; importing one registers its scenarios."""

from tests.pbx.stage.scenario import SCENARIOS
from tests.pbx.stage.scenarios import (
    agents,
    attended_transfers,
    blind_transfers,
    blonde_transfers,
    conferences,
    consultations,
    feature_codes,
    forwards,
    groups,
    holding,
    originate,
    parking,
    pickup,
    plain,
    queues,
    services,
)

__all__ = [
    "SCENARIOS",
    "agents",
    "attended_transfers",
    "blind_transfers",
    "blonde_transfers",
    "conferences",
    "consultations",
    "feature_codes",
    "forwards",
    "groups",
    "holding",
    "originate",
    "parking",
    "pickup",
    "plain",
    "queues",
    "services",
]
