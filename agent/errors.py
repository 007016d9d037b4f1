"""What can go wrong beside the PBX, sorted by what to do next."""


class AgentError(Exception):
    """Root of this package's errors. The text is one sentence that can be shown to an operator."""


class PbxLost(AgentError):
    """The connection to the PBX is gone or cannot be made: try again after a while."""


class PbxRefused(PbxLost):
    """The PBX refuses the log-in: try again slowly, and tell the operator what to mend."""


class StoreUnavailable(AgentError):
    """The local database cannot be opened or written; the text says which file, why and what to do."""


class StoreHeld(StoreUnavailable):
    """Another living process holds the local database; the text says which."""


class StoreDamaged(StoreUnavailable):
    """The local database is damaged: it is kept aside and salvaged, and what is heard meanwhile is spilled."""


class SalvageStopped(AgentError):
    """Somebody wanted the salvage to end; the damaged database is as it was."""


class StoreNewer(StoreUnavailable):
    """A newer program wrote the local database: what is heard is spilled until that is installed again."""


class ContextStoreAway(AgentError):
    """The live context store does not answer: capture goes on, contexts are put back when it returns."""


class CallUnknown(AgentError):
    """No call of this id goes on, and the local database holds none."""


class OperationRefused(AgentError):
    """What a service wants to write is not what it has to be: mend it, sending it again does not help.

    `field` names the part at fault, as in "interactions.0.confidence".
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class TaskUnknown(OperationRefused):
    """The task is not on the call's stack (any more)."""


class TooLarge(OperationRefused):
    """A bound of the settings' [live] section is exceeded; `bound` names it."""

    def __init__(self, field: str, *, bound: str, limit: int) -> None:
        super().__init__(field, f"more than live.{bound} = {limit} allows")
        self.bound = bound
        self.limit = limit


class RevisionChanged(AgentError):
    """Somebody else has written since the revision that a service names: read the context again, now at `revision`."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the context has changed meanwhile, its revision is {revision}")
        self.revision = revision
