"""The sandbox ESM: a stand-in for the trading partner that speaks the whole of esm.md, with faults on demand.

Beside the contract's routes it has its own, for those who play with it:

    GET    /sandbox/faults          the faults that wait to be met
    POST   /sandbox/faults          {"fault", "route"?, "times"?, "seconds"?}: spoils the next answers of a route
    DELETE /sandbox/faults
    DELETE /sandbox/tokens          every token is refused from now on
    GET    /sandbox/plants          all plants with everything the sandbox knows of them
    POST   /sandbox/plants          adds a plant: {"plantId", "name", …}
    PATCH  /sandbox/plants/{id}     changes any of its fields, e.g. {"name"}, {"latePolls": 2}, {"configEnabled": false}
    DELETE /sandbox/plants/{id}
"""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from pydantic import AliasGenerator, BaseModel, ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from application.ports import EsmAnswer, EsmPlant, EsmPlantConfig
from domain.day_plan import TimeBlock
from infra.sandbox.esm_plants import SandboxPlant, SandboxPlants
from infra.sandbox.faults import Fault, Faults, Handler, RouteName, spoiled
from infra.sandbox.port import Port

CLIENT_ID = "sandbox"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - public on purpose: it opens nothing but the sandbox
TOKEN_PREFIX = "sandbox-token-"  # noqa: S105 - so that one is known wherever it turns up


class EsmUpdate(BaseModel):
    """The body of a config update."""

    model_config = ConfigDict(strict=True, alias_generator=AliasGenerator(to_camel), populate_by_name=True)

    plant_id: str
    version: int
    validate_only: bool = False
    time_configs: list[TimeBlock]


class SandboxEsm:
    """The sandbox ESM, not yet listening: `app` is the ASGI application, `plants` and `faults` its state, `calls` how
    often each route was asked. `start` (or `with`) serves it, and then `url` is what to configure as esmApiUrl; with a
    `certificate`, a PEM file with its key, over https."""

    def __init__(
        self,
        plants: int | Sequence[SandboxPlant] = 3,
        *,
        client_id: str = CLIENT_ID,
        client_secret: str = CLIENT_SECRET,
        host: str = "127.0.0.1",
        port: int = 0,
        base_path: str = "",
        token_life: int = 3600,
        certificate: Path | None = None,
    ):
        self.plants = SandboxPlants(plants)
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.client_id = client_id
        self.client_secret = client_secret
        self.token_life = token_life
        self._address = (host, port)
        self._certificate = certificate
        self._base_path = base_path
        self._port: Port | None = None
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        routes = [*self._trading_routes(), *self._sandbox_routes()]
        self.app = Starlette(
            routes=[Mount(base_path, routes=routes)] if base_path else routes,
            exception_handlers={KeyError: _not_found, ValueError: _bad_request},
        )

    @property
    def url(self) -> str:
        if self._port is None:
            raise RuntimeError("the sandbox ESM is not started")
        return self._port.url + self._base_path

    def start(self) -> Self:
        self._port = Port(self.app, *self._address, self._certificate)
        return self

    def stop(self) -> None:
        """Idempotent."""
        if self._port:
            self._port.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self, plants: int | Sequence[SandboxPlant] = 3) -> None:
        """Back to the beginning, on the same port."""
        if self._port:
            self._port.come_back()
        self.plants = SandboxPlants(plants)
        self.faults.clear()
        self.calls.clear()
        self.revoke_tokens()

    @property
    def tokens(self) -> list[str]:
        """The tokens that it has handed out."""
        with self._lock:
            return list(self._tokens)

    def revoke_tokens(self) -> None:
        with self._lock:
            self._tokens.clear()

    def _trading_routes(self) -> list[Route]:
        def route(name: RouteName, method: str, path: str, handler: Handler, *, open_: bool = False) -> Route:
            async def endpoint(request: Request) -> Response:
                self.calls[name] += 1
                guarded = handler if open_ else self._authorized(handler)
                fault = self.faults.take(name)
                if fault is None:
                    return await guarded(request)
                answer = await spoiled(fault, guarded, request)
                if fault.takes_the_port_away:
                    self._leave(fault)
                return answer

            return Route(f"/trading/{path}", endpoint, methods=[method])

        return [
            route("token", "POST", "token", self._token, open_=True),
            route("list", "GET", "plant/list", self._list),
            route("config", "GET", "plant/config", self._config),
            route("update", "POST", "plant/config/update", self._update),
            route("request", "GET", "plant/config/request", self._request),
        ]

    def _sandbox_routes(self) -> list[Route]:
        return [
            Route("/sandbox/faults", self._show_faults, methods=["GET"]),
            Route("/sandbox/faults", self._add_fault, methods=["POST"]),
            Route("/sandbox/faults", self._clear_faults, methods=["DELETE"]),
            Route("/sandbox/tokens", self._revoke_tokens, methods=["DELETE"]),
            Route("/sandbox/plants", self._show_plants, methods=["GET"]),
            Route("/sandbox/plants", self._add_plant, methods=["POST"]),
            Route("/sandbox/plants/{plant_id}", self._change_plant, methods=["PATCH"]),
            Route("/sandbox/plants/{plant_id}", self._remove_plant, methods=["DELETE"]),
        ]

    def _authorized(self, handler: Handler) -> Handler:
        async def endpoint(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            with self._lock:
                known = scheme.lower() == "bearer" and self._tokens.get(token, 0) > time.monotonic()
            return await handler(request) if known else _error(401, "invalid_token")

        return endpoint

    async def _token(self, request: Request) -> Response:
        form = {name: values[-1] for name, values in parse_qs((await request.body()).decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type")
        if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
            return _error(401, "invalid_client")
        token = f"{TOKEN_PREFIX}{secrets.token_urlsafe(24)}"
        with self._lock:
            self._tokens[token] = time.monotonic() + self.token_life
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": self.token_life})

    async def _list(self, _: Request) -> Response:
        return JSONResponse({"plants": [_json(plant.listed()) for plant in self.plants.all()]})

    async def _config(self, request: Request) -> Response:
        config = self.plants.get(request.query_params.get("plantId", "")).config()
        return JSONResponse(_json(config))

    async def _update(self, request: Request) -> Response:
        update = EsmUpdate.model_validate_json(await request.body())
        answer = self.plants.update(
            update.plant_id, update.version, update.time_configs, validate_only=update.validate_only
        )
        return JSONResponse(_json(answer))

    async def _request(self, request: Request) -> Response:
        return JSONResponse(_json(self.plants.status(request.query_params.get("requestCode", ""))))

    async def _show_faults(self, _: Request) -> Response:
        return JSONResponse([fault.model_dump() for fault in self.faults.waiting()])

    async def _add_fault(self, request: Request) -> Response:
        fault = Fault.model_validate_json(await request.body())
        if fault.takes_the_port_away and fault.route is None:
            self._leave(fault)
            return Response(status_code=204, headers={"Connection": "close"})
        self.faults.add(fault)
        return Response(status_code=204)

    def _leave(self, fault: Fault) -> None:
        if self._port:
            self._port.go_away(fault.seconds, deaf=fault.fault == "tls")

    async def _clear_faults(self, _: Request) -> Response:
        self.faults.clear()
        return Response(status_code=204)

    async def _revoke_tokens(self, _: Request) -> Response:
        self.revoke_tokens()
        return Response(status_code=204)

    async def _show_plants(self, _: Request) -> Response:
        return JSONResponse([_json(plant) for plant in self.plants.all()])

    async def _add_plant(self, request: Request) -> Response:
        plant = _plant(_FIELDS.validate_json(await request.body()))
        self.plants.put(plant)
        return JSONResponse(_json(plant))

    async def _change_plant(self, request: Request) -> Response:
        known = _json(self.plants.get(request.path_params["plant_id"]))
        changed = _plant({**known, **_FIELDS.validate_json(await request.body()), "plantId": known["plantId"]})
        self.plants.put(changed)
        return JSONResponse(_json(changed))

    async def _remove_plant(self, request: Request) -> Response:
        self.plants.remove(request.path_params["plant_id"])
        return Response(status_code=204)


_PLANT = TypeAdapter(SandboxPlant)
_FIELDS = TypeAdapter(dict[str, Any])
_PLANT_FIELDS = {to_camel(field.name): field.name for field in fields(SandboxPlant)}


def _json(value: EsmPlant | EsmPlantConfig | EsmAnswer | SandboxPlant) -> dict[str, Any]:
    """A dataclass with the API's names."""
    named = {to_camel(field.name): getattr(value, field.name) for field in fields(value)}
    if "timeConfigs" in named:
        named["timeConfigs"] = [block.as_json() for block in named["timeConfigs"]]
    return named


def _plant(body: dict[str, Any]) -> SandboxPlant:
    """A plant from the API's names; ValueError for others."""
    if unknown := body.keys() - _PLANT_FIELDS.keys():
        raise ValueError(f"unknown fields: {unknown}")
    return _PLANT.validate_python({_PLANT_FIELDS[name]: value for name, value in body.items()})


def _error(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)


async def _not_found(_: Request, __: Exception) -> Response:
    return _error(404, "not_found")


async def _bad_request(_: Request, __: Exception) -> Response:
    return _error(400, "bad_request")
