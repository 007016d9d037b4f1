"""What can go wrong between a service and the agent, sorted by what to do next."""


class EdgeError(Exception):
    """Root of the client's errors. `code` is the agent's word for it, `field` what is at fault."""

    def __init__(self, detail: str, *, code: str = "", field: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.field = field


class EdgeUnavailable(EdgeError):
    """The agent was not reached, or could keep nothing, for as long as the client is patient: try again later."""


class AccessDenied(EdgeError):
    """The token is unknown, may read only, or is not for this tenant: ask the operator."""


class CallNotFound(EdgeError):
    """There is no such call or task, or it is not this service's to see."""


class ContextChanged(EdgeError):
    """Somebody else wrote since the revision that was named: read again and decide anew."""

    def __init__(self, detail: str, *, revision: int | None, code: str = "", field: str | None = None) -> None:
        super().__init__(detail, code=code, field=field)
        self.revision = revision


class WriteRefused(EdgeError):
    """What was sent is not what it has to be, or larger than a bound: sending it again does not help."""
