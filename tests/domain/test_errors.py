"""The API's codes and sentences."""

import pytest

from domain import errors
from domain.errors import EsmUnreachable, Invalid, PlantNotLinked, WattledgerError

CONTRACT = {
    "WattledgerError": ("INTERNAL_SERVER_ERROR", "Internal server error", None),
    "Unauthorized": ("UNAUTHORIZED", "Unauthorized", None),
    "Forbidden": ("FORBIDDEN", "Forbidden", None),
    "OrgContextRequired": ("ORG_CONTEXT_REQUIRED", "The header x-org-id is required", None),
    "OrgMembershipRequired": ("ORG_MEMBERSHIP_REQUIRED", "Not a member of this organization", None),
    "InsufficientOrgPermissions": (
        "INSUFFICIENT_ORG_PERMISSIONS",
        "Insufficient permissions in this organization",
        None,
    ),
    "Invalid": ("VALIDATION_ERROR", "Validation error", None),
    "BadRequest": ("BAD_REQUEST", "Bad request", None),
    "PlantNotLinked": ("BAD_REQUEST", "Plant is not linked to ESM", "PLANT_NOT_LINKED_TO_ESM"),
    "PlantEsmNotConfigured": ("BAD_REQUEST", "ESM integration is not configured", "ESM_NOT_CONFIGURED"),
    "InvalidUuid": ("INVALID_UUID", "Invalid plant UUID", None),
    "EsmUrlNotAllowed": ("VALIDATION_ERROR", "The ESM API URL is not allowed", "ESM_URL_NOT_ALLOWED"),
    "QueuePrefixTaken": ("VALIDATION_ERROR", "The queue prefix is taken", "QUEUE_PREFIX_TAKEN"),
    "TradingConfigIncomplete": (
        "TRADING_CONFIG_INCOMPLETE",
        "Config incomplete or ESM credentials not set",
        None,
    ),
    "EsmNotConfigured": ("ESM_NOT_CONFIGURED", "ESM integration is not configured", "ESM_NOT_CONFIGURED"),
    "NotFound": ("NOT_FOUND", "Not found", None),
    "PlantNotFound": ("PLANT_NOT_FOUND", "Plant not found", None),
    "MethodNotAllowed": ("METHOD_NOT_ALLOWED", "Method not allowed", None),
    "Conflict": ("CONFLICT", "Conflict", None),
    "ChangeInFlight": ("CONFLICT", "Another change of this plant's config is in flight", "CHANGE_IN_FLIGHT"),
    "AlreadyExists": ("CONFLICT", "It exists already", "ALREADY_EXISTS"),
    "RequestInProgress": (
        "CONFLICT",
        "A request with this Idempotency-Key is being handled",
        "REQUEST_IN_PROGRESS",
    ),
    "IdempotencyKeyReused": (
        "CONFLICT",
        "This Idempotency-Key was used for another request",
        "IDEMPOTENCY_KEY_REUSED",
    ),
    "PreconditionFailed": ("PRECONDITION_FAILED", "The config has changed since that ETag", None),
    "PayloadTooLarge": ("PAYLOAD_TOO_LARGE", "Payload too large", None),
    "RequestTimeout": ("REQUEST_TIMEOUT", "The request did not come in time", None),
    "TooEarly": ("TOO_EARLY", "The read models have not reached that position yet", None),
    "TooManyRequests": ("TOO_MANY_REQUESTS", "Too many requests", None),
    "TooManyStreams": (
        "TOO_MANY_REQUESTS",
        "Too many streams are open in this organization",
        "TOO_MANY_STREAMS",
    ),
    "Unavailable": ("SERVICE_UNAVAILABLE", "Service unavailable", None),
    "EsmUnreachable": ("SERVICE_UNAVAILABLE", "The ESM can't be reached", "ESM_UNREACHABLE"),
    "BrokerUnreachable": ("SERVICE_UNAVAILABLE", "The message broker can't be reached", "BROKER_UNREACHABLE"),
}


def tree(root: type[WattledgerError] = WattledgerError) -> list[type[WattledgerError]]:
    branches = [each for each in root.__subclasses__() if each.__module__ == errors.__name__]
    return [root, *(leaf for branch in branches for leaf in tree(branch))]


def test_the_contract_knows_every_error_and_every_error_is_in_it() -> None:
    assert {error.__name__ for error in tree()} == set(CONTRACT)


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_code_sentence_and_reason(error: type[WattledgerError]) -> None:
    assert (error.code, str(error()), error.reason) == CONTRACT[error.__name__]


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_the_drawing_shows_it(error: type[WattledgerError]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


def test_details_are_empty_when_there_is_nothing_to_say() -> None:
    assert Invalid().details == {}
    assert Invalid("Another sentence").details == {}


def test_details_name_the_errors_and_the_reason() -> None:
    assert Invalid(errors=["timeConfigs.0.from: must be HH:MM"]).details == {
        "errors": ["timeConfigs.0.from: must be HH:MM"]
    }
    assert PlantNotLinked().details == {"reason": "PLANT_NOT_LINKED_TO_ESM"}


def test_the_raiser_may_say_more() -> None:
    error = EsmUnreachable("ESM answered 500", retry_after=7)
    assert (str(error), error.retry_after, error.code) == ("ESM answered 500", 7, "SERVICE_UNAVAILABLE")
