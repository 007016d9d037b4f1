"""What the hub's tests share."""

from tests.hub_server import hub, hub_address

__all__ = ["hub", "hub_address"]
