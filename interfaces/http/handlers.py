"""What each endpoint does: commands call a use case, queries ask the read side; the checks are behind them."""

import re
from uuid import UUID

import anyio

from application.plant_configs import PlantConfigChange
from application.plants import SyncResult
from application.trading import TradingConfigChange
from domain.errors import PreconditionFailed, RequestInProgress
from domain.organisation import Organisation
from domain.trading_config import TradingConfig
from interfaces.http import auditing
from interfaces.http.auditing import AsOfQuery, PlantsQuery
from interfaces.http.bodies import ConnectionDetails, PlantConfigEntry, WindowQuery
from interfaces.http.endpoint import Call
from projections import command_log as commands
from projections import config_log as changes
from projections import meters as energy
from projections import plants as listed
from projections import telemetry as measured
from projections import trading_configs
from projections.command_log import CommandLogEntry, CommandLogQuery
from projections.config_log import ConfigLogEntry
from projections.meters import MeterRow
from projections.page import Page, PageQuery
from projections.plants import PlantEntry, unveiled
from projections.telemetry import TelemetryRow
from projections.trading_configs import TradingConfigEntry

_ETAG = re.compile(r'"([0-9]{1,18})"')


async def config(call: Call, query: AsOfQuery) -> TradingConfigEntry:
    if query.as_of is not None:
        return await auditing.config_as_of(call, query.as_of)
    found = await trading_configs.trading_config(call.connection, call.organization_id)
    if found is None:  # created a moment ago: the log has it
        return await anyio.to_thread.run_sync(_config, call)
    entry, version = found
    call.answer_headers["ETag"] = f'"{version}"'
    return trading_configs.unveiled(entry, await call.unveil())


async def config_as_answered(call: Call, positions: range) -> TradingConfigEntry:
    """As the events at these positions left it."""
    config_id = TradingConfig.create_id(call.organization_id)
    version = await trading_configs.version_recorded(call.connection, config_id, positions)
    if version is None:
        raise RequestInProgress(retry_after=1)
    load = call.services.trading.load
    return await anyio.to_thread.run_sync(lambda: _entry(call, load(call.organization_id, version)))


async def switched_as_answered(call: Call, positions: range) -> TradingConfigEntry:
    """Of an enable or disable, whose killed process may have left the queues undone."""
    await anyio.to_thread.run_sync(call.services.trading.mend_queues, call.organization_id)
    return await config_as_answered(call, positions)


def change_config(call: Call, change: TradingConfigChange) -> TradingConfigEntry:
    return _entry(call, call.services.trading.change_config(call.organization_id, change, _if_version(call)))


def enable(call: Call) -> TradingConfigEntry:
    return _entry(call, call.services.trading.enable(call.organization_id))


def disable(call: Call) -> TradingConfigEntry:
    return _entry(call, call.services.trading.disable(call.organization_id))


def connection_details(call: Call) -> ConnectionDetails:
    trading = call.services.trading
    slug = trading.events.load(Organisation, call.organization_id).slug
    queue_prefix = trading.load(call.organization_id).queue_prefix
    return ConnectionDetails.of(call.services.partner_broker, slug, queue_prefix)


async def plants(call: Call, query: PlantsQuery) -> Page[PlantEntry]:
    if query.as_of is not None:
        return await auditing.plants_as_of(call, query, query.as_of)
    return unveiled(await listed.plants(call.connection, call.organization_id, query), await call.unveil())


def sync(call: Call) -> SyncResult:
    return call.services.plants.sync(call.organization_id)


def plant_config(call: Call, plant_id: UUID, query: AsOfQuery) -> PlantConfigEntry:
    if query.as_of is not None:
        return anyio.from_thread.run(auditing.plant_config_as_of, call, plant_id, query.as_of)
    return PlantConfigEntry.of(call.services.plant_configs.current(call.organization_id, plant_id))


def change_plant_config(call: Call, plant_id: UUID, change: PlantConfigChange) -> ConfigLogEntry:
    sent = call.services.plant_configs.change(call.organization_id, plant_id, change, call.caller.id)
    return changes.unveiled(changes.entry_of(sent), call.services.trading.secrets.unveil(call.organization_id))


def validate_plant_config(call: Call, plant_id: UUID, change: PlantConfigChange) -> ConfigLogEntry:
    return change_plant_config(call, plant_id, change.model_copy(update={"validate_only": True}))


async def config_log(call: Call, plant_id: UUID, query: PageQuery) -> Page[ConfigLogEntry]:
    page, unveil = await changes.config_log(call.connection, plant_id, query), await call.unveil()
    return Page(data=[changes.unveiled(change, unveil) for change in page.data], meta=page.meta)


async def config_log_entry(call: Call, plant_id: UUID, positions: range) -> ConfigLogEntry:
    """Of the change that was recorded at one of these positions."""
    found = await changes.change_at(call.connection, plant_id, positions)
    if found is None:
        raise RequestInProgress(retry_after=1)
    return changes.unveiled(found, await call.unveil())


async def command_log(call: Call, plant_id: UUID, query: CommandLogQuery) -> Page[CommandLogEntry]:
    return await commands.command_log(call.connection, plant_id, query)


async def telemetry(call: Call, plant_id: UUID, query: WindowQuery) -> list[TelemetryRow]:
    return await measured.telemetry(call.connection, plant_id, query.window())


async def latest(call: Call, plant_id: UUID) -> TelemetryRow:
    return await measured.latest(call.connection, plant_id)


async def meters(call: Call, plant_id: UUID, query: WindowQuery) -> list[MeterRow]:
    return await energy.meters(call.connection, plant_id, query.window())


def _config(call: Call) -> TradingConfigEntry:
    return _entry(call, call.services.trading.load(call.organization_id))


def _entry(call: Call, config: TradingConfig) -> TradingConfigEntry:
    call.answer_headers["ETag"] = f'"{config.version}"'
    entry = trading_configs.entry_of(config, call.services.turns.last_success(call.organization_id))
    return trading_configs.unveiled(entry, call.services.trading.secrets.unveil(call.organization_id))


def _if_version(call: Call) -> int | None:
    """The version that If-Match asks for; a weak or malformed tag matches nothing."""
    given = ", ".join(call.headers.getlist("if-match")).strip()
    if given in ("", "*"):
        return None
    tags = [_ETAG.fullmatch(tag.strip()) for tag in given.split(",")]
    versions = {int(tag[1]) for tag in tags if tag}
    if len(versions) > 1:
        versions &= {call.services.trading.load(call.organization_id).version}
    if not versions:
        raise PreconditionFailed
    return versions.pop()
