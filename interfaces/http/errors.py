"""Errors as HTTP answers: one dict maps the families of the tree to a status, one envelope carries them all."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import psycopg
from eventsourcing.persistence import IntegrityError, MapperDeserialisationError
from psycopg_pool import PoolTimeout
from psycopg_pool import TooManyRequests as PoolOverrun
from starlette.exceptions import HTTPException
from starlette.responses import Response

from domain.catalogue import UNKNOWN
from domain.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    PreconditionFailed,
    RequestTimeout,
    TooEarly,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    WattledgerError,
)
from interfaces.http.answers import JsonResponse

log = logging.getLogger(__name__)

STATUS: dict[type[WattledgerError], HTTPStatus] = {
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Invalid: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    Conflict: HTTPStatus.CONFLICT,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    RequestTimeout: HTTPStatus.REQUEST_TIMEOUT,
    TooEarly: HTTPStatus.TOO_EARLY,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    WattledgerError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

BUSY_S = 1
UNREACHABLE_S = 5


def error_response(error: WattledgerError, headers: Mapping[str, str] | None = None) -> Response:
    """The envelope with its status, and when to come again or how to log in where that helps."""
    helpful: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        helpful["WWW-Authenticate"] = 'Bearer realm="wattledger"'
    if isinstance(error, RequestTimeout):
        # What is still to come of the request must not be taken for another.
        helpful["Connection"] = "close"
    retry_after = error.retry_after or (UNREACHABLE_S if isinstance(error, Unavailable) else None)
    if retry_after is not None:
        helpful["Retry-After"] = str(retry_after)
    return JsonResponse(envelope(error), status_of(type(error)), {**helpful, **(headers or {})})


def envelope(error: WattledgerError) -> dict[str, Any]:
    status = status_of(type(error))
    return {
        "statusCode": int(status),
        "error": status.phrase,
        "code": error.code,
        "message": str(error),
        "details": error.details,
    }


def status_of(error: type[WattledgerError]) -> HTTPStatus:
    return next(STATUS[family] for family in error.__mro__ if family in STATUS)


def as_error(exception: Exception) -> WattledgerError | None:
    """What we answer for an exception, None for one that nobody foresaw."""
    match exception:
        case WattledgerError():
            return exception
        case PoolTimeout() | PoolOverrun():
            return Unavailable("The database is busy", retry_after=BUSY_S)
        case psycopg.errors.QueryCanceled():
            return Unavailable("The query took too long", retry_after=BUSY_S)
        case psycopg.OperationalError():
            return Unavailable("The database can't be reached", retry_after=BUSY_S)
        case MapperDeserialisationError() if str(exception).endswith(UNKNOWN):
            log.error("another version wrote an event that this one can't read", extra={"error": str(exception)})
            return Unavailable("This process is older than the event log", retry_after=UNREACHABLE_S)
        case IntegrityError():
            return Conflict("Another request changed it at the same time")
        case HTTPException():
            return _of_starlette(exception)
    return None


def _of_starlette(exception: HTTPException) -> WattledgerError:
    families: dict[int, type[WattledgerError]] = {int(status): family for family, status in STATUS.items()}
    family = families.get(exception.status_code, BadRequest if exception.status_code < 500 else WattledgerError)
    return BadRequest() if family is Invalid else family()
