"""What operators and browsers ask for: health, metrics, the OpenAPI document and its page, which needs no network."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import anyio
import psycopg
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from swagger_ui_bundle import swagger_ui_path

from domain.errors import NotFound, Unavailable
from interfaces.http.answers import JsonResponse
from interfaces.http.errors import error_response
from interfaces.http.services import Check, HttpServices, Standing

CHECK_TIMEOUT_S = 3.0

_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
# Relative addresses, so that it also works behind a proxy that adds a prefix.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Wattledger API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def operation_routes(services: HttpServices, document: Mapping[str, Any], prefixes: tuple[str, ...]) -> list[Route]:
    """The same under each prefix: the contract names one, probes and scrapers expect the root."""

    async def ready(_: Request) -> Response:
        return await _ready(services)

    async def metrics(_: Request) -> Response:
        # A collector may ask the database, so it must not stop the loop.
        text = await anyio.to_thread.run_sync(generate_latest, services.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(_: Request) -> Response:
        return JsonResponse(document)

    routes = {
        "/health/live": _live,
        "/health/ready": ready,
        "/metrics": metrics,
        "/openapi.json": openapi,
        "/docs": _docs,
        "/docs/{name}": _docs_file,
    }
    return [Route(prefix + path, handler, methods=["GET"]) for prefix in prefixes for path, handler in routes.items()]


async def _live(_: Request) -> Response:
    return JsonResponse({"status": "live"})


async def _ready(services: HttpServices) -> Response:
    """All at once, each with its time; what is wrong is told in the envelope's details."""
    found: dict[str, str] = dict.fromkeys((*services.checks, "queries"), "no answer in time")

    async def ask(name: str, check: Check) -> None:
        with anyio.move_on_after(CHECK_TIMEOUT_S):
            found[name] = await anyio.to_thread.run_sync(_ask, check, abandon_on_cancel=True)

    async def ask_queries() -> None:
        with anyio.move_on_after(CHECK_TIMEOUT_S):
            found["queries"] = await _ask_queries(services)

    async def look() -> None:
        with anyio.move_on_after(CHECK_TIMEOUT_S):
            standing.update(await anyio.to_thread.run_sync(_stand, services.standing, abandon_on_cancel=True))

    standing: dict[str, object] = {}
    async with anyio.create_task_group() as asking:
        asking.start_soon(ask_queries)
        asking.start_soon(look)
        for name, check in services.checks.items():
            asking.start_soon(ask, name, check)
    if all(answer == "ok" for answer in found.values()):
        return JsonResponse({"status": "ready", "checks": found, **standing})
    error = Unavailable("Not ready")
    error.details |= {"checks": found, **standing}
    return error_response(error)


async def _ask_queries(services: HttpServices) -> str:
    """The pool that every GET takes its connection from: it may still hold lost ones when the database is back."""
    try:
        async with services.queries.connection() as connection:
            await connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return "PostgreSQL can't be reached"
    return "ok"


def _ask(check: Check) -> str:
    try:
        return check() or "ok"
    except Exception as error:  # noqa: BLE001 - whatever it is, we are not ready
        return type(error).__name__


def _stand(standing: Standing) -> Mapping[str, object]:
    try:
        return standing()
    except Exception:  # noqa: BLE001 - the checks tell what is wrong
        return {}


async def _docs(_: Request) -> Response:
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


async def _docs_file(request: Request) -> Response:
    name = request.path_params["name"]
    cached = {"Cache-Control": "public, max-age=3600"}
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=cached)
    if name not in _FILES:
        raise NotFound
    content = await anyio.to_thread.run_sync(_bundled, name)
    return Response(content, media_type=_FILES[name], headers=cached)


@lru_cache
def _bundled(name: str) -> bytes:
    content: bytes = (swagger_ui_path / name).read_bytes()
    return content
