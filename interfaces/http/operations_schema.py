"""The OpenAPI operations of health, metrics and documentation, which no row of the table describes."""

from typing import Any

from domain.errors import Unavailable
from interfaces.http.errors import envelope
from projections.read_models import READ_MODELS

READY = {
    "status": "ready",
    "checks": dict.fromkeys(("database", "broker", "slots", "process", "queries"), "ok"),
    "slots": {
        name: {"lagEvents": 0, "lagSeconds": 0.0, "parked": False}
        for name in (*(model.name for model in READ_MODELS), "publisher", "sealer")
    },
    "measurementsUntil": "2026-08-31",
}
_OPERATIONS = {
    "/health/live": ("live", "Whether the process answers", "application/json", {"status": "live"}),
    "/health/ready": (
        "ready", "Whether it can serve, and how far the work is", "application/json", READY,
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
        lost = dict.fromkeys(("database", "slots", "queries"), "PostgreSQL can't be reached")
        not_ready.details["checks"] = {**lost, "broker": "ok", "process": "ok"}
        body = {"schema": {"$ref": "#/components/schemas/ErrorBody"}, "example": envelope(not_ready)}
        responses["503"] = {"description": "Service Unavailable", "content": {"application/json": body}}
    return {"operationId": name, "summary": summary, "tags": ["Operations"], "security": [], "responses": responses}
