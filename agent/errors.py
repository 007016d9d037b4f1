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


class ContextStoreAway(AgentError):
    """The live context store does not answer: capture goes on, contexts are put back when it returns."""
