"""Why a day cannot be verified."""

from agent.errors import AgentError


class NotVerifiable(AgentError):
    """What the PBX wrote down cannot be read, or does not reach so far; the text says why and what to do."""
