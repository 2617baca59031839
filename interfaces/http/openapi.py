"""The OpenAPI 3.1 document, from the table of endpoints: every answer, errors included, with an example of each."""

from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter

from domain.errors import (
    BadRequest,
    Forbidden,
    IdempotencyKeyReused,
    InsufficientOrgPermissions,
    OrgContextRequired,
    OrgMembershipRequired,
    PayloadTooLarge,
    RequestInProgress,
    RequestTimeout,
    TooEarly,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    WattledgerError,
)
from interfaces.http.bodies import ErrorBody
from interfaces.http.endpoint import Endpoint
from interfaces.http.endpoints import PREFIX
from interfaces.http.errors import envelope, status_of
from interfaces.http.examples import EXAMPLES
from interfaces.http.operations_schema import operation_paths

REF = "#/components/schemas/{model}"
OF_ALL = (
    Unauthorized, OrgContextRequired, OrgMembershipRequired, InsufficientOrgPermissions, Forbidden, TooEarly,
    TooManyRequests, Unavailable("The database is busy"), WattledgerError,
)  # fmt: skip
PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "x-org-id": (
        "The organisation (UUID): required with a JWT, implied by an API key; an empty one counts as none",
        {"anyOf": [{"format": "uuid"}, {"maxLength": 0}]},
    ),
    "X-Request-Id": ("Echoed, and stored with every event that the request causes", {}),
    "X-Position-AtLeast": (
        "Wait up to 1 s until the read models have reached this position, else 425",
        {"pattern": "^[0-9]{1,18}$"},
    ),
    "Idempotency-Key": (
        "The same request again under it, within 24 h, gets the first one's answer",
        {"pattern": "^[!-~]{1,255}$"},
    ),
    "Last-Event-ID": (
        "The id of the last event that was received: the stream goes on after it",
        {"pattern": "^[0-9]{1,18}-[0-9]{1,16}$"},
    ),
    "If-Match": ("The ETag that the change is based on: a stale one is 412", {}),
}
ANSWER_HEADERS = {
    "X-Request-Id": "The request's id, as given or made",
    "X-Position": "The position in the event log that the answer knows of or has written",
    "RateLimit-Limit": "Calls a minute",
    "RateLimit-Remaining": "Calls left in this window",
    "RateLimit-Reset": "Seconds until the window ends",
    "ETag": "The config's version",
    "X-As-Of": "Only with asOf: the answer is from our event log, as of this position",
    "Retry-After": "Seconds to wait",
    "WWW-Authenticate": "How to authenticate",
}


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document as JSON values."""
    references, schemas = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = paths.setdefault(PREFIX + endpoint.path, {})
        path[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wattledger",
            "version": "1",
            "description": "Trading and ESM integration endpoints. Every 4xx and 5xx is an ErrorBody.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "Trading", "description": "Trading and ESM integration endpoints"}, {"name": "Operations"}],
        "security": [{"jwt": []}, {"apiKey": []}],
        "paths": paths | operation_paths(PREFIX),
        "components": {
            "schemas": schemas,
            "parameters": {name: _header_parameter(name, *described) for name, described in PARAMETERS.items()},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}} for name, text in ANSWER_HEADERS.items()
            },
            "securitySchemes": {
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _schemas(endpoints: Sequence[Endpoint]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """The schema of each type by (type, mode), and the components that they refer to."""
    answers = [(_answer(endpoint), "serialization") for endpoint in endpoints] + [(ErrorBody, "serialization")]
    inputs = [(model, "validation") for endpoint in endpoints for model in (endpoint.body,) if model]
    wanted: list[Any] = [
        ((str(kind), mode), mode, TypeAdapter(kind)) for kind, mode in dict.fromkeys([*answers, *inputs])
    ]
    references, definitions = TypeAdapter.json_schemas(wanted, ref_template=REF)
    return {key: reference for (key, _), reference in references.items()}, definitions["$defs"]


def _operation(endpoint: Endpoint, references: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    answer_headers = ("X-Request-Id", "X-Position", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
    name = endpoint.handler.__name__
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": endpoint.summary,
        "tags": ["Trading"],
        "parameters": _parameters(endpoint),
        "responses": {
            "200": {
                "description": "OK",
                "headers": _headers((*answer_headers, *endpoint.headers)),
                "content": _content(
                    endpoint.streams or ("application/json",),
                    references[str(_answer(endpoint)), "serialization"],
                    EXAMPLES[name],
                ),
            },
            **_errors(endpoint, references[str(ErrorBody), "serialization"]),
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": _json(references[str(endpoint.body), "validation"], EXAMPLES[endpoint.body.__name__]),
        }
    return operation


def _answer(endpoint: Endpoint) -> Any:
    return str if endpoint.streams else get_type_hints(endpoint.handler)["return"]


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = ["x-org-id", "X-Request-Id", "X-Position-AtLeast"]
    if "ETag" in endpoint.headers and endpoint.body:
        names.append("If-Match")
    if endpoint.method == "POST":
        names.append("Idempotency-Key")
    if "text/event-stream" in endpoint.streams:
        names.append("Last-Event-ID")
    parameters: list[dict[str, Any]] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    schema = {"type": "string", "format": "uuid"}
    for number, name in enumerate(endpoint.path_ids):
        parameters.insert(number, {"name": name, "in": "path", "required": True, "schema": schema})
    if endpoint.query:
        parameters += _query_parameters(endpoint.query)
    return parameters


def _query_parameters(query: type[BaseModel]) -> Iterable[dict[str, Any]]:
    for name, schema in query.model_json_schema()["properties"].items():
        described = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
        # Absent is not null in a query string.
        options = [option for option in described.pop("anyOf", []) if option.get("type") != "null"]
        described |= options[0] if options else {}
        if schema.get("default") is not None:
            described["default"] = schema["default"]
        yield {"name": name, "in": "query", "description": schema.get("description", ""), "schema": described}


def _header_parameter(name: str, description: str, form: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **form}}


def _errors(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """By status, with an example for each code and reason."""
    possible: list[type[WattledgerError] | WattledgerError] = [*OF_ALL, *endpoint.errors]
    possible.append(endpoint.invalid("Validation error", errors=["unknown: Extra inputs are not permitted"]))
    if endpoint.malformed_id is not BadRequest:
        possible.append(endpoint.malformed_id)
    if endpoint.method == "POST":
        possible += [PayloadTooLarge, RequestTimeout, RequestInProgress, IdempotencyKeyReused]
    by_status: dict[str, dict[str, Any]] = {}
    for error in (each if isinstance(each, WattledgerError) else each() for each in possible):
        examples = by_status.setdefault(str(int(status_of(type(error)))), {})
        examples[error.reason or error.code] = {"summary": str(error), "value": envelope(error)}
    return {
        status: {
            "description": next(iter(examples.values()))["value"]["error"],
            "headers": _headers(("X-Request-Id", *_HELPFUL.get(status, ()))),
            "content": {"application/json": {"schema": body, "examples": examples}},
        }
        for status, examples in sorted(by_status.items())
    }


_HELPFUL = {"401": ("WWW-Authenticate",), "429": ("Retry-After",), "503": ("Retry-After",), "425": ("X-Position",)}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: dict[str, Any], example: object) -> dict[str, Any]:
    return _content(("application/json",), schema, example)


def _content(media_types: Sequence[str], schema: dict[str, Any], example: object) -> dict[str, Any]:
    """A binary format has no example."""
    text = {"schema": schema, "example": example}
    return {kind: text if kind.startswith("text/") or kind.endswith("json") else {} for kind in media_types}
