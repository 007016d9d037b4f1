"""The hub of the tests, beside a site's whole way to it."""

from tests.hub_server import hub, hub_address

__all__ = ["hub", "hub_address"]
