"""The table of all endpoints: this is the REST contract (api.md), one row each."""

from application.plant_configs import PlantConfigChange
from application.trading import TradingConfigChange
from domain.errors import (
    BrokerUnreachable,
    ChangeInFlight,
    Conflict,
    EsmNotConfigured,
    EsmUnreachable,
    EsmUrlNotAllowed,
    Invalid,
    InvalidUuid,
    NotFound,
    PlantEsmNotConfigured,
    PlantNotFound,
    PlantNotLinked,
    PreconditionFailed,
    QueuePrefixTaken,
    TooManyStreams,
    TradingConfigIncomplete,
)
from interfaces.http import auditing
from interfaces.http import handlers as do
from interfaces.http.auditing import AsOfQuery, AuditQuery, PlantsQuery
from interfaces.http.bodies import WindowQuery
from interfaces.http.credentials import Right
from interfaces.http.endpoint import Endpoint
from interfaces.http.exports import ExportQuery, export_meters, export_telemetry
from interfaces.http.streams import stream_telemetry
from projections.command_log import CommandLogQuery
from projections.formats import NoParquet
from projections.page import PageQuery

PREFIX = "/api/v1"
FILES = ("text/csv", "application/vnd.apache.parquet")
EVENTS = ("text/event-stream",)

_PLANT = "/trading/plants/{plant_id}"
_OVERTAKEN = Conflict("Another request changed it at the same time")
_OF_CONFIG = (_OVERTAKEN, PreconditionFailed, EsmUrlNotAllowed, QueuePrefixTaken)
_OF_LINKED = (PlantNotFound, PlantNotLinked, PlantEsmNotConfigured)

ENDPOINTS = (
    Endpoint(
        "GET", "/trading/config", do.config, Right.READ, "Get trading partner configuration for this org",
        query=AsOfQuery, invalid=Invalid, errors=(NotFound("There was no trading config then"),),
        headers=("ETag", "X-As-Of"),
    ),
    Endpoint(
        "POST", "/trading/config", do.change_config, Right.ADMIN, "Create or update trading partner configuration",
        body=TradingConfigChange, invalid=Invalid, errors=_OF_CONFIG, headers=("ETag",), recover=do.config_as_answered,
    ),
    Endpoint(
        "POST", "/trading/config/enable", do.enable, Right.ADMIN, "Enable trading (creates AMQP queues)",
        invalid=Invalid, errors=(TradingConfigIncomplete, _OVERTAKEN, BrokerUnreachable), headers=("ETag",),
        recover=do.switched_as_answered,
    ),
    Endpoint(
        "POST", "/trading/config/disable", do.disable, Right.ADMIN, "Disable trading (removes AMQP queues)",
        invalid=Invalid, errors=(_OVERTAKEN, BrokerUnreachable), headers=("ETag",), recover=do.switched_as_answered,
    ),
    Endpoint(
        "GET", "/trading/connection-details", do.connection_details, Right.WRITE,
        "Get AMQP connection details for partner integration", invalid=Invalid,
    ),
    Endpoint(
        "GET", "/trading/plants", do.plants, Right.READ, "The organisation's plants", query=PlantsQuery,
        headers=("X-As-Of",),
    ),
    Endpoint(
        "POST", "/trading/plants/sync", do.sync, Right.WRITE, "Force immediate plant sync from ESM",
        invalid=Invalid, limit="syncs",
        errors=(EsmNotConfigured, EsmUnreachable("ESM can't be reached for the plant list"), _OVERTAKEN),
    ),
    Endpoint(
        "GET", f"{_PLANT}/command-log", do.command_log, Right.READ, "ESM command relay audit trail",
        query=CommandLogQuery, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/command-log/{{command_id}}", auditing.command, Right.READ,
        "A command, with the plan that was in force when it was relayed",
        errors=(PlantNotFound, NotFound("Command not found")),
    ),
    Endpoint(
        "GET", f"{_PLANT}/config", do.plant_config, Right.READ, "Get current plant config from ESM",
        query=AsOfQuery, headers=("X-As-Of",),
        errors=(
            *_OF_LINKED, EsmUnreachable("ESM can't be reached for the plant config"),
            NotFound("No plan had been applied through us by then"),
        ),
    ),
    Endpoint(
        "POST", f"{_PLANT}/config", do.change_plant_config, Right.WRITE, "Update plant config via ESM",
        body=PlantConfigChange, errors=(*_OF_LINKED, ChangeInFlight), recover=do.config_log_entry,
    ),
    Endpoint(
        "POST", f"{_PLANT}/config/validate", do.validate_plant_config, Right.WRITE, "Validate plant config (dry-run)",
        body=PlantConfigChange, errors=(*_OF_LINKED, ChangeInFlight), recover=do.config_log_entry,
    ),
    Endpoint(
        "GET", f"{_PLANT}/config-log", do.config_log, Right.READ, "Config change audit trail",
        query=PageQuery, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/meters", do.meters, Right.READ, "Query meter data",
        query=WindowQuery, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/meters/export", export_meters, Right.READ, "Meter readings or energy as a file",
        query=ExportQuery, errors=(PlantNotFound, NoParquet), streams=FILES,
    ),
    Endpoint(
        "GET", f"{_PLANT}/telemetry", do.telemetry, Right.READ, "Query trading telemetry (AMQP-sourced)",
        query=WindowQuery, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/telemetry/export", export_telemetry, Right.READ, "Telemetry samples or means as a file",
        query=ExportQuery, errors=(PlantNotFound, NoParquet), streams=FILES,
    ),
    Endpoint(
        "GET", f"{_PLANT}/telemetry/latest", do.latest, Right.READ, "Latest trading telemetry snapshot",
        malformed_id=InvalidUuid, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/telemetry/stream", stream_telemetry, Right.READ, "New telemetry as Server-Sent Events",
        errors=(PlantNotFound, TooManyStreams), streams=EVENTS,
    ),
    Endpoint(
        "GET", "/trading/audit", auditing.audit, Right.AUDIT, "The organisation's events, newest first",
        query=AuditQuery,
    ),
)  # fmt: skip
