"""Every error that Wattledger answers with: the class carries the API's code, its docstring is the message.

    WattledgerError
    ├── Unauthorized
    ├── Forbidden
    │   ├── OrgContextRequired
    │   ├── OrgMembershipRequired
    │   └── InsufficientOrgPermissions
    ├── Invalid
    │   ├── BadRequest ── PlantNotLinked, PlantEsmNotConfigured
    │   ├── InvalidUuid
    │   ├── EsmUrlNotAllowed
    │   ├── QueuePrefixTaken
    │   ├── TradingConfigIncomplete
    │   └── EsmNotConfigured
    ├── NotFound ── PlantNotFound
    ├── MethodNotAllowed
    ├── Conflict ── ChangeInFlight, AlreadyExists, RequestInProgress, IdempotencyKeyReused
    ├── PreconditionFailed
    ├── PayloadTooLarge
    ├── RequestTimeout
    ├── TooEarly
    ├── TooManyRequests ── TooManyStreams
    └── Unavailable ── EsmUnreachable, BrokerUnreachable

The edge maps each family (the direct children of the root) to one HTTP status; nothing in here knows HTTP.
"""

from typing import Any, ClassVar


class WattledgerError(Exception):
    """Internal server error"""

    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"
    reason: ClassVar[str | None] = None

    def __init__(self, message: str | None = None, *, errors: list[str] | None = None, retry_after: int | None = None):
        super().__init__(message or type(self).sentence())
        self.retry_after = retry_after
        self.details: dict[str, Any] = {}
        if errors:
            self.details["errors"] = errors
        if self.reason:
            self.details["reason"] = self.reason

    @classmethod
    def sentence(cls) -> str:
        """The message that is sent when the raiser gave none: the first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]


class Unauthorized(WattledgerError):
    """Unauthorized"""

    code = "UNAUTHORIZED"


class Forbidden(WattledgerError):
    """Forbidden"""

    code = "FORBIDDEN"


class OrgContextRequired(Forbidden):
    """The header x-org-id is required"""

    code = "ORG_CONTEXT_REQUIRED"


class OrgMembershipRequired(Forbidden):
    """Not a member of this organization"""

    code = "ORG_MEMBERSHIP_REQUIRED"


class InsufficientOrgPermissions(Forbidden):
    """Insufficient permissions in this organization"""

    code = "INSUFFICIENT_ORG_PERMISSIONS"


class Invalid(WattledgerError):
    """Validation error"""

    code = "VALIDATION_ERROR"


class BadRequest(Invalid):
    """Bad request"""

    code = "BAD_REQUEST"


class PlantNotLinked(BadRequest):
    """Plant is not linked to ESM"""

    reason = "PLANT_NOT_LINKED_TO_ESM"


class PlantEsmNotConfigured(BadRequest):
    """ESM integration is not configured"""

    reason = "ESM_NOT_CONFIGURED"


class InvalidUuid(Invalid):
    """Invalid plant UUID"""

    code = "INVALID_UUID"


class EsmUrlNotAllowed(Invalid):
    """The ESM API URL is not allowed"""

    reason = "ESM_URL_NOT_ALLOWED"


class QueuePrefixTaken(Invalid):
    """The queue prefix is taken"""

    reason = "QUEUE_PREFIX_TAKEN"


class TradingConfigIncomplete(Invalid):
    """Config incomplete or ESM credentials not set"""

    code = "TRADING_CONFIG_INCOMPLETE"


class EsmNotConfigured(Invalid):
    """ESM integration is not configured"""

    code = "ESM_NOT_CONFIGURED"
    reason = "ESM_NOT_CONFIGURED"


class NotFound(WattledgerError):
    """Not found"""

    code = "NOT_FOUND"


class PlantNotFound(NotFound):
    """Plant not found"""

    code = "PLANT_NOT_FOUND"


class MethodNotAllowed(WattledgerError):
    """Method not allowed"""

    code = "METHOD_NOT_ALLOWED"


class Conflict(WattledgerError):
    """Conflict"""

    code = "CONFLICT"


class ChangeInFlight(Conflict):
    """Another change of this plant's config is in flight"""

    reason = "CHANGE_IN_FLIGHT"


class AlreadyExists(Conflict):
    """It exists already"""

    reason = "ALREADY_EXISTS"


class RequestInProgress(Conflict):
    """A request with this Idempotency-Key is being handled"""

    reason = "REQUEST_IN_PROGRESS"


class IdempotencyKeyReused(Conflict):
    """This Idempotency-Key was used for another request"""

    reason = "IDEMPOTENCY_KEY_REUSED"


class PreconditionFailed(WattledgerError):
    """The config has changed since that ETag"""

    code = "PRECONDITION_FAILED"


class PayloadTooLarge(WattledgerError):
    """Payload too large"""

    code = "PAYLOAD_TOO_LARGE"


class RequestTimeout(WattledgerError):
    """The request did not come in time"""

    code = "REQUEST_TIMEOUT"


class TooEarly(WattledgerError):
    """The read models have not reached that position yet"""

    code = "TOO_EARLY"


class TooManyRequests(WattledgerError):
    """Too many requests"""

    code = "TOO_MANY_REQUESTS"


class TooManyStreams(TooManyRequests):
    """Too many streams are open in this organization"""

    reason = "TOO_MANY_STREAMS"


class Unavailable(WattledgerError):
    """Service unavailable"""

    code = "SERVICE_UNAVAILABLE"


class EsmUnreachable(Unavailable):
    """The ESM can't be reached"""

    reason = "ESM_UNREACHABLE"


class BrokerUnreachable(Unavailable):
    """The message broker can't be reached"""

    reason = "BROKER_UNREACHABLE"
