"""The OpenAPI document: valid, complete, and true to the routes and to the reference."""

import re
from dataclasses import replace
from typing import Any

import pytest
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter
from starlette.routing import Route as StarletteRoute

from interfaces.http.app import Resource, build_app
from interfaces.http.endpoints import ENDPOINTS, PREFIX
from interfaces.http.examples import EXAMPLES
from interfaces.http.openapi import _answer
from tests.http.reference import ROUTES, Route
from tests.http.world import World


@pytest.fixture(scope="module")
def document(package_world: World) -> dict[str, Any]:
    found: dict[str, Any] = package_world.client.get("/openapi.json").json()
    return found


def test_it_is_valid(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_routes_are_documented_and_the_other_way_round(world: World, document: dict[str, Any]) -> None:
    routes = build_app(replace(world.services, registry=CollectorRegistry())).routes
    served = {
        (method, route.path)
        for route in routes
        if isinstance(route, StarletteRoute) and route.path.startswith(PREFIX) and "{name}" not in route.path
        for method in (route.endpoint.endpoints if isinstance(route.endpoint, Resource) else ["GET"])
    }
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert served == documented


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_it_says_what_the_reference_says(document: dict[str, Any], route: Route) -> None:
    operation = document["paths"][f"/api/v1{route.path}"][route.method.lower()]
    codes = {
        example["value"]["code"]
        for response in operation["responses"].values()
        for example in response["content"]["application/json"].get("examples", {}).values()
    }
    expected = {"UNAUTHORIZED", "FORBIDDEN", "INTERNAL_SERVER_ERROR", "TOO_MANY_REQUESTS", "SERVICE_UNAVAILABLE"}
    expected |= {route.invalid} if route.invalid else set()
    expected |= {"PLANT_NOT_FOUND"} if route.of_plant else set()
    assert expected <= codes
    for status, response in operation["responses"].items():
        for example in response["content"]["application/json"].get("examples", {}).values():
            assert str(example["value"]["statusCode"]) == status
    sample = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert _shape(sample) == _shape(route.answer)


def test_examples_are_valid() -> None:
    for endpoint in ENDPOINTS:
        example = EXAMPLES[endpoint.handler.__name__]
        TypeAdapter(_answer(endpoint)).validate_python(example)
        if endpoint.body:
            endpoint.body.model_validate(EXAMPLES[endpoint.body.__name__])


def test_no_secret_is_shown(document: dict[str, Any]) -> None:
    answers = str([item["get"]["responses"] for item in document["paths"].values() if "get" in item])
    assert not re.search("secret", answers, re.IGNORECASE)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items() if key not in ("payload", "configSnapshot")}
    return [_shape(value[0])] if isinstance(value, list) else "value"
