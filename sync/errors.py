"""What can go wrong between a site and the centre, sorted by what to do next."""


class SyncError(Exception):
    """Root of this package's errors."""


class UplinkUnavailable(SyncError):
    """The centre cannot be reached or is busy: try again later. Sending the same batch twice is harmless.

    `retry_after_seconds` is the centre's own wish, if it told one.
    """

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class UplinkRefused(SyncError):
    """The centre refuses this site as a whole (credentials, rights, missing or newer schema): pause the
    pipe, tell the operator, condemn no record, and look again now and then."""


class NotUnderstood(UplinkRefused):
    """The hub cannot read the request: one side has a fault, or a record holds what JSON cannot."""


class SiteRefused(UplinkRefused):
    """The centre refuses what a site shows: its name, credential or enrolment code. `code` is docs/hub.md's."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class LeaseLost(UplinkUnavailable):
    """Nobody else speaks for the site, but its lease was given up or has run out: a greeting gets a new one."""


class CentreBehind(UplinkUnavailable):
    """The centre has given fewer receipts than the site holds, so it was restored from a backup; nothing was stored.
    A greeting shows what is missing."""


class BatchTooLarge(SyncError):
    """A batch of this size is never taken; the same records in smaller batches are."""


class LeaseHeld(UplinkUnavailable):
    """Another installation speaks for this site just now; the text names it. It is over when that one falls silent."""


class Fenced(UplinkRefused):
    """Another installation has taken over this site, so this one is a copy or was restored from a backup; the text
    names the other and says how to decide which of them goes on."""


class OutboxUnavailable(SyncError):
    """The outbox cannot be read or written now (a full disk, a lock): try again later. What was sent and could not
    be settled is sent again, which is harmless."""


class SchemaMismatch(SyncError):
    """A database's schema is older or newer than this program; the text says which and what to do."""
