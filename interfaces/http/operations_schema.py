"""The OpenAPI operations of health, metrics and documentation, which no row of the table describes."""

from typing import Any

from domain.errors import Unavailable
from interfaces.http.errors import envelope

_OPERATIONS = {
    "/health/live": ("live", "Whether the process answers", "application/json", {"status": "live"}),
    "/health/ready": (
        "ready", "Whether it can serve", "application/json", {"status": "ready", "checks": {"database": "ok"}},
    ),
    "/metrics": ("metrics", "Metrics for Prometheus", "text/plain", None),
    "/openapi.json": ("openapi", "This document", "application/json", None),
    "/docs": ("docs", "This document as a page", "text/html", None),
}  # fmt: skip


def operation_paths(prefix: str) -> dict[str, Any]:
    """By path; they need no credentials."""
    return {prefix + path: {"get": _operation(*described)} for path, described in _OPERATIONS.items()}


def _operation(name: str, summary: str, media_type: str, example: object) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "object" if media_type == "application/json" else "string"}}
    if example is not None:
        content["example"] = example
    responses: dict[str, Any] = {"200": {"description": "OK", "content": {media_type: content}}}
    if name == "ready":
        not_ready = Unavailable("Not ready")
        not_ready.details["checks"] = {"database": "The database can't be reached"}
        body = {"schema": {"$ref": "#/components/schemas/ErrorBody"}, "example": envelope(not_ready)}
        responses["503"] = {"description": "Service Unavailable", "content": {"application/json": body}}
    return {"operationId": name, "summary": summary, "tags": ["Operations"], "security": [], "responses": responses}
