"""What a gateway answers in one number, and the word for it."""

from __future__ import annotations

from enum import Enum, IntEnum


class Reason(str, Enum):
    """Why a request was not answered with an output; the `reason` of GatewayRefused."""

    MALFORMED = "malformed"
    UNKNOWN_BUNDLE = "unknown_bundle"
    TOO_LATE = "too_late"
    DIGEST_MISMATCH = "digest_mismatch"
    TOO_LARGE = "too_large"
    UNSUPPORTED_VERSION = "unsupported_version"
    BUSY = "busy"
    FAILED = "failed"
    DRAINING = "draining"
    CANCELLED = "cancelled"


class Status(IntEnum):
    """Status of a reply; the numbers mean what they mean in HTTP."""

    OK = 200
    MALFORMED = 400
    UNKNOWN_BUNDLE = 404
    """No such bundle, or not all of its stages, on this gateway."""
    TOO_LATE = 408
    """It cannot be finished within what was left of the budget, or nothing was left."""
    DIGEST_MISMATCH = 409
    """Topic and header name different bundles or stages."""
    TOO_LARGE = 413
    UNSUPPORTED_VERSION = 426
    BUSY = 429
    CANCELLED = 499
    """Its own device asked for that; older devices never do, and never see this."""
    FAILED = 500
    DRAINING = 503

    @property
    def reason(self) -> Reason | None:
        """The word for this status; None for OK."""
        return _REASONS.get(self)


_REASONS: dict[Status, Reason] = {
    Status.MALFORMED: Reason.MALFORMED,
    Status.UNKNOWN_BUNDLE: Reason.UNKNOWN_BUNDLE,
    Status.TOO_LATE: Reason.TOO_LATE,
    Status.DIGEST_MISMATCH: Reason.DIGEST_MISMATCH,
    Status.TOO_LARGE: Reason.TOO_LARGE,
    Status.UNSUPPORTED_VERSION: Reason.UNSUPPORTED_VERSION,
    Status.BUSY: Reason.BUSY,
    Status.FAILED: Reason.FAILED,
    Status.DRAINING: Reason.DRAINING,
    Status.CANCELLED: Reason.CANCELLED,
}
