"""`wattledger up`: everything in one process tree, with a demo organisation, for newcomers and for trying things."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from application.ports import Broker
from infra import logs, partner_auth
from infra.bootstrap import Parts, Where, assembled, embedded_keys
from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from infra.embedded.processes import free_ports
from infra.local_broker import LocalBroker
from infra.operator_keys import OperatorKey
from infra.postgres import connect
from infra.rabbitmq import RabbitBroker
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.physics import CET
from infra.sandbox.plants import SimulatedPlants
from infra.serving import PortTaken, Serving
from infra.settings import Settings
from interfaces.cli.demo import BACK_FILL, Demo, read_demo, seeded, wait_for_telemetry, write_demo
from interfaces.cli.serving import GRACE_S, end_on_sigterm, wait_for_end
from interfaces.cli.wiring import api, working
from projections.schema import migrate

LOOPBACK = "127.0.0.0/8"


def up() -> None:
    """Runs all of Wattledger on this machine, with a demo organisation. Example: wattledger up

    It listens on WATTLEDGER_HTTP_PORT (8000). Data, keys and demo.json lie in WATTLEDGER_HOME (.wattledger). Ctrl-C
    stops it; starting again goes on.
    """
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    logs.configure_file(settings.log_level, settings.home / "up.log")
    end_on_sigterm()
    with ExitStack() as stack:
        typer.echo("Starting …")
        settings = _with_address(settings)
        where, broker = _servers(stack, settings)
        parts = stack.enter_context(assembled(where, settings, broker))
        app = api(parts, settings)
        server = stack.enter_context(Serving(app, "127.0.0.1", settings.http_port, lifespan="on", grace_s=GRACE_S))
        esm = stack.enter_context(_sandbox(settings))
        # The simulated plants have a clock of their own.
        stack.enter_context(working(parts, settings, None if "plant_time_zone" in settings.model_fields_set else CET))
        demo = seeded(parts, esm, server.url, read_demo(settings.home))
        stack.enter_context(_plants(parts, esm, demo))
        wait_for_telemetry(parts, demo)
        write_demo(settings.home, demo)
        typer.echo(_banner(demo, settings.home, _asks_us(settings)))
        wait_for_end()
        typer.echo("\nStopping …")


def _with_address(settings: Settings) -> Settings:
    """The broker is told where the API will be before there is one, and asks it from here."""
    port = settings.http_port or free_ports(1)[0]
    networks = [settings.rabbitmq_auth_network, LOOPBACK if _asks_us(settings) else ""]
    network = ",".join(filter(None, networks))
    return settings.model_copy(update={"http_port": port, "rabbitmq_auth_network": network})


def _asks_us(settings: Settings) -> bool:
    """Whether the broker is a node of our own with the plugins that partner logins need."""
    return (
        settings.amqp_url is None and PrivateRabbitmq.installed() and PrivateRabbitmq.has_plugins(partner_auth.PLUGINS)
    )


def _node(settings: Settings) -> PrivateRabbitmq:
    if not _asks_us(settings):
        return PrivateRabbitmq(settings.home)
    config = partner_auth.config(f"http://127.0.0.1:{settings.http_port}")
    return PrivateRabbitmq(settings.home, plugins=partner_auth.PLUGINS, config=config)


def _servers(stack: ExitStack, settings: Settings) -> tuple[Where, Broker | None]:
    """PostgreSQL, and RabbitMQ from the setting, else of our own, else the in-process broker."""
    database_url = settings.database_url or stack.enter_context(EmbeddedPostgres(settings.home)).url
    with connect(database_url, "migrate") as connection:
        migrate(connection)
    amqp_url, broker = settings.amqp_url, None
    if amqp_url is None and PrivateRabbitmq.installed():
        amqp_url = stack.enter_context(_node(settings)).url
    elif amqp_url is None:
        broker = LocalBroker()
    # Beside a database of one's own, as every other command there; embedded ones have their own keys.
    given = settings.secret_keys if settings.database_url else None
    keys = OperatorKey.parse_all(given) if given is not None else embedded_keys(settings.home)
    return Where(database_url, amqp_url, keys, [*settings.allowed_partners, LOOPBACK]), broker


@contextmanager
def _sandbox(settings: Settings) -> Iterator[SandboxEsm]:
    """On the port of the last time, so that the demo's config stays true; on another one if that is taken."""
    before = read_demo(settings.home)
    port = settings.sandbox_port or (before.sandbox_port if before else 0)
    try:
        esm = SandboxEsm(port=port).start()
    except PortTaken:
        esm = SandboxEsm().start()
    try:
        yield esm
    finally:
        esm.stop()


@contextmanager
def _plants(parts: Parts, esm: SandboxEsm, demo: Demo) -> Iterator[None]:
    """The plants' own client of the broker, as gateways have theirs."""
    amqp_url = parts.where.amqp_url
    broker = RabbitBroker(amqp_url, name="sandbox plants") if amqp_url else parts.broker
    plants = SimulatedPlants(
        broker,
        demo.organization_slug,
        [(plant.id, plant.external_plant_id) for plant in demo.plants],
        site_of=lambda external_id: esm.plants.get(external_id).site(),
        back_fill=BACK_FILL if demo.is_new else BACK_FILL * 0,
    )
    with plants:
        yield
    if amqp_url:
        broker.close()


def _banner(demo: Demo, home: Path, asks_us: bool) -> str:
    broker = "RabbitMQ" if demo.amqp_url else "in-process (rabbitmq-server is not installed)"
    login = f"\nPartner's AMQP login: {demo.partner_amqp_url}" if asks_us else ""
    base = f"{demo.url}/api/v1/trading"
    read = f"curl -s -H 'X-API-Key: {demo.api_keys['read']}'"
    write = f"curl -s -H 'X-API-Key: {demo.api_keys['write']}'"
    plant = f"{base}/plants/{demo.plants[0].id}"
    block = '{"from":"00:00","to":"24:00","pBatMin":-5,"pBatMax":5,"socMin":10,"socMax":90}'
    keys = "\n".join(f"  {name:<8} {key}" for name, key in demo.api_keys.items())
    return f"""
Wattledger is ready: {demo.url}/docs

API keys of the organisation {demo.organization_slug} ({demo.organization_id}):
{keys}

Try:
  {read} {base}/config
  {read} {base}/plants
  {read} {plant}/telemetry/latest
  {write} -H 'Content-Type: application/json' -d '{{"timeConfigs":[{block}]}}' {plant}/config

Sandbox ESM: {demo.sandbox_url} · broker: {broker}{login}
All of this is in {home / "demo.json"}; the log is {home / "up.log"}. Ctrl-C stops everything.
"""
