"""Commands that spoil the sandbox ESM's answers, over its admin route."""

from typing import Annotated, Any, cast, get_args

import httpx
import typer

from domain.errors import EsmUnreachable, NotFound
from infra.sandbox.faults import ABOUT, Fault, RouteName
from infra.settings import Settings
from interfaces.cli.demo import read_demo
from interfaces.cli.output import AsJson, show

app = typer.Typer(help="Spoils the sandbox ESM's next answers, to see what becomes of them.", no_args_is_help=True)

ROUTES = ", ".join(get_args(RouteName))
DEFAULT_URL = "http://127.0.0.1:8700"
Url = Annotated[
    str | None, typer.Option(help=f"The ESM API URL of the sandbox; unset: that of the running `up`, or {DEFAULT_URL}.")
]


@app.command("list")
def listed(as_json: AsJson = False) -> None:
    """Says which faults there are. Example: wattledger sandbox faults list"""
    show([{"fault": name, "about": about} for name, about in ABOUT.items()], as_json)


@app.command()
def add(
    fault: Annotated[str, typer.Argument(help="Which; `faults list` tells what there is.")],
    route: Annotated[str | None, typer.Option(help=f"Whose answers: {ROUTES}; unset: any, a port at once.")] = None,
    times: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many answers.")] = 1,
    seconds: Annotated[float, typer.Option(min=0, max=600, help="How long slow ones take, or the port is away.")] = 60,
    url: Url = None,
) -> None:
    """Spoils the next answers. Example: wattledger sandbox faults add 500 --route list --times 3"""
    if fault not in ABOUT:
        raise NotFound(f"No fault {fault}; there are {', '.join(ABOUT)}")
    if route not in (None, *get_args(RouteName)):
        raise NotFound(f"No route {route}; there are {ROUTES}")
    wanted = Fault(fault=fault, route=cast("RouteName | None", route), times=times, seconds=seconds)
    _ask("POST", url, json=wanted.model_dump())


@app.command("show")
def shown(url: Url = None, as_json: AsJson = False) -> None:
    """Shows the faults that wait to be met. Example: wattledger sandbox faults show"""
    show(_ask("GET", url).json(), as_json)


@app.command()
def clear(url: Url = None) -> None:
    """Forgets all faults that wait. Example: wattledger sandbox faults clear"""
    _ask("DELETE", url)


def _ask(method: str, url: str | None, **options: Any) -> httpx.Response:
    demo = read_demo(Settings().home)
    base = url or (demo.sandbox_url if demo else DEFAULT_URL)
    try:
        # Whoever runs a sandbox with a certificate has signed it themselves, and nothing secret is said here.
        answer = httpx.request(method, f"{base.rstrip('/')}/sandbox/faults", trust_env=False, verify=False, **options)  # noqa: S501
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL):
        raise EsmUnreachable(f"No sandbox answers at {base}: start one with `wattledger sandbox`") from None
    return answer
