"""Commands that play the other side: a stand-in ESM, and a partner who certifies an installation."""

import shlex
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from pika.exceptions import AMQPError, ProbableAuthenticationError

from domain.errors import BrokerUnreachable, Invalid, NotFound
from infra.bootstrap import NotConfigured
from infra.sandbox.certification import SCENARIOS, Check, certify
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.partner_client import NobodyListens, PartnerClient
from infra.settings import Settings
from interfaces.cli import faults
from interfaces.cli.demo import Demo, read_demo
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.serving import end_on_sigterm, wait_for_end

app = typer.Typer(invoke_without_command=True)
app.add_typer(faults.app, name="faults")

UNREACHABLE = (AMQPError, OSError)


@app.callback()
def sandbox(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for a free one.")] = 8700,
    plants: Annotated[int, typer.Option(min=0, max=10_000, help="How many plants it lists.")] = 3,
    certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A PEM file with its key: serves https.")
    ] = None,
) -> None:
    """Runs a stand-in ESM with believable plants and faults on demand. Example: wattledger sandbox --port 8700"""
    if context.invoked_subcommand is not None:
        return
    with ExitStack() as stack:
        end_on_sigterm()
        esm = stack.enter_context(SandboxEsm(plants, port=port, certificate=certificate))
        typer.echo(f"ESM API URL:   {esm.url}\nclient id:     {esm.client_id}\nclient secret: {esm.client_secret}")
        typer.echo("Let it in with WATTLEDGER_ESM_ALLOWED=127.0.0.0/8. `wattledger sandbox faults` spoils its answers.")
        typer.echo("Ctrl-C ends it.")
        wait_for_end()


@app.command()
def partner(
    scenario: Annotated[list[str] | None, typer.Option(help="A scenario to run; may be repeated.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Say which there are.")] = False,
    amqp_url: Annotated[str | None, typer.Option(help="The broker, as the partner logs in to it.")] = None,
    prefix: Annotated[str | None, typer.Option(help="The organisation's queue prefix.")] = None,
    site: Annotated[str | None, typer.Option(help="A plant, by its id at the ESM.")] = None,
    signing_key: Annotated[
        str | None, typer.Option(envvar="WATTLEDGER_SIGNING_KEY", help="Minted with the key to connect with.")
    ] = None,
    restart_command: Annotated[
        str | None, typer.Option(help="Restarts the broker; without it, our connection is cut instead.")
    ] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds that each answer may take.")] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Plays a partner and reports what was expected and seen; exit status 1 if they differ.

    What is not given is that of the `up` that runs in WATTLEDGER_HOME. It commands the plant and reads the partner's
    queues, so let no real partner read them meanwhile. Example: wattledger sandbox partner --scenario happy-day
    """
    if listed:
        show([{"scenario": name, "about": run.__doc__} for name, run in SCENARIOS.items()], as_json)
        return
    chosen = _chosen(scenario or [], everything)
    client = _client(amqp_url, prefix, site, signing_key, patience)
    reports = {name: _run(name, client, restart_command) for name in chosen}
    _tell(reports, as_json)
    if not all(check.passed for checks in reports.values() for check in checks):
        raise typer.Exit(1)


def _chosen(names: list[str], everything: bool) -> list[str]:
    if everything == bool(names):
        raise Invalid("Name a --scenario, or say --all; --list tells which there are")
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown:
        raise NotFound(f"No scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    return names or list(SCENARIOS)


def _client(
    amqp_url: str | None, prefix: str | None, site: str | None, signing_key: str | None, patience: float
) -> PartnerClient:
    demo = read_demo(Settings().home)
    url = amqp_url or (_demo_login(demo) if demo else None)
    prefix = prefix or (demo.organization_slug if demo else None)
    site = site or (demo.plants[0].external_plant_id if demo and demo.plants else None)
    signing_key = signing_key or (demo.signing_key if demo else None)
    if url is None or prefix is None or site is None or signing_key is None:
        raise NotConfigured(
            "No `wattledger up` with RabbitMQ in WATTLEDGER_HOME: give --amqp-url, --prefix, --site and --signing-key"
        )
    return PartnerClient(url, prefix, site, signing_key, patience)


def _demo_login(demo: Demo) -> str | None:
    """The partner's own login where the broker knows partners, else the administrator's."""
    if demo.partner_amqp_url is None:
        return None
    try:
        with PartnerClient(demo.partner_amqp_url, demo.organization_slug, "", ""):
            return demo.partner_amqp_url
    except ProbableAuthenticationError:
        return demo.amqp_url
    except UNREACHABLE:
        raise BrokerUnreachable from None


def _run(name: str, client: PartnerClient, restart_command: str | None) -> list[Check]:
    """A scenario on a connection of its own; whatever ends it early is in its report."""
    client.answers.clear()
    client.reconnects = 0
    try:
        with client:
            return certify(name, client, _disturbance(client, restart_command))
    except NobodyListens as error:
        return [Check("sending", "a queue", str(error))]
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        return [Check("restart command", "exit status 0", str(error))]
    except UNREACHABLE as error:
        return [Check("connection", "open", f"lost: {type(error).__name__}")]


def _disturbance(client: PartnerClient, restart_command: str | None) -> Callable[[], None]:
    if restart_command is None:
        return client.cut
    words = shlex.split(restart_command)

    def restart() -> None:
        subprocess.run(words, check=True, capture_output=True)

    return restart


def _tell(reports: dict[str, list[Check]], as_json: bool) -> None:
    told: list[dict[str, Any]] = [
        {
            "scenario": name,
            "passed": all(check.passed for check in checks),
            "checks": [
                {"step": each.step, "expected": each.expected, "seen": each.seen, "passed": each.passed}
                for each in checks
            ],
        }
        for name, checks in reports.items()
    ]
    if as_json:
        print_json(told)
        return
    for report in told:
        typer.echo(f"{report['scenario']}: {'passed' if report['passed'] else 'FAILED'}")
        show(report["checks"], as_json=False)
        typer.echo("")
