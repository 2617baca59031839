"""RabbitMQ's questions about partners (`rabbitmq_auth_backend_http`): a form in, `allow` or `deny` out.

No part of the public API: they are answered only to the configured network, and are not there for anybody else.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl
from uuid import UUID

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from application.organisations import parse_api_key
from application.partner_logins import PartnerLogins
from domain.errors import NotFound
from interfaces.http import inputs
from interfaces.http.errors import as_error, error_response
from interfaces.http.services import Network

PREFIX = "/internal/rabbitmq"
MAX_FIELDS = 100

Question = Callable[[PartnerLogins, Mapping[str, str]], bool]


def _user(logins: PartnerLogins, form: Mapping[str, str]) -> bool:
    return logins.may_log_in(form["username"], form.get("password"))


def _vhost(logins: PartnerLogins, form: Mapping[str, str]) -> bool:
    return logins.may_enter(form["username"], form["vhost"])


def _resource(logins: PartnerLogins, form: Mapping[str, str]) -> bool:
    return logins.may_use(form["username"], form["vhost"], form["resource"], form["name"], form["permission"])


def _topic(logins: PartnerLogins, form: Mapping[str, str]) -> bool:
    place = (form["username"], form["vhost"], form["name"])
    return form["resource"] == "topic" and logins.may_route(*place, form["permission"], form["routing_key"])


QUESTIONS: dict[str, Question] = {"user": _user, "vhost": _vhost, "resource": _resource, "topic": _topic}


def partner_login_routes(
    logins: PartnerLogins, networks: Sequence[Network], used: Callable[[UUID], None]
) -> list[Route]:
    """None without a network: then the routes don't exist. `used` is told of keys that log in."""

    def route(name: str, question: Question) -> Route:
        async def endpoint(request: Request) -> Response:
            if not _is_from(networks, request):
                return error_response(NotFound())
            try:
                form = _form(await inputs.content(request))
                # In a thread: it asks the event log.
                allowed = form is not None and await anyio.to_thread.run_sync(_ask, question, logins, form)
            except Exception as exception:
                error = as_error(exception)
                if error is None:
                    raise
                # No 200: the broker refuses, and does not remember it.
                return error_response(error)
            if form is not None and allowed and name == "user":
                key_id, _ = parse_api_key(form.get("password", "")) or (None, "")
                if key_id:
                    used(key_id)
            return PlainTextResponse("allow" if allowed else "deny")

        return Route(f"{PREFIX}/{name}", endpoint, methods=["POST"])

    return [route(name, question) for name, question in QUESTIONS.items()] if networks else []


def _is_from(networks: Sequence[Network], request: Request) -> bool:
    """The broker calls us itself: what came through a proxy is somebody else's, whatever address the proxy has."""
    if request.client is None or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _form(body: bytes) -> dict[str, str] | None:
    """Each field once, else None: two readers must not take two different ones."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        return None
    form = dict(pairs)
    return form if len(form) == len(pairs) else None


def _ask(question: Question, logins: PartnerLogins, form: Mapping[str, str]) -> bool:
    try:
        return question(logins, form)
    except KeyError:  # a question that names not all that it is about
        return False
