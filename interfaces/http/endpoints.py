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
    PlantEsmNotConfigured,
    PlantNotFound,
    PlantNotLinked,
    PreconditionFailed,
    QueuePrefixTaken,
    TradingConfigIncomplete,
)
from interfaces.http import handlers as do
from interfaces.http.bodies import WindowQuery
from interfaces.http.credentials import Right
from interfaces.http.endpoint import Endpoint
from projections.command_log import CommandLogQuery
from projections.page import PageQuery

PREFIX = "/api/v1"

_PLANT = "/trading/plants/{plant_id}"
_OF_CONFIG = (Conflict, PreconditionFailed, EsmUrlNotAllowed, QueuePrefixTaken)
_OF_LINKED = (PlantNotFound, PlantNotLinked, PlantEsmNotConfigured, EsmUnreachable)

ENDPOINTS = (
    Endpoint(
        "GET", "/trading/config", do.config, Right.READ, "Get trading partner configuration for this org",
        invalid=Invalid, headers=("ETag",),
    ),
    Endpoint(
        "POST", "/trading/config", do.change_config, Right.ADMIN, "Create or update trading partner configuration",
        body=TradingConfigChange, invalid=Invalid, errors=_OF_CONFIG, headers=("ETag",), recover=do.config_as_answered,
    ),
    Endpoint(
        "POST", "/trading/config/enable", do.enable, Right.ADMIN, "Enable trading (creates AMQP queues)",
        invalid=Invalid, errors=(TradingConfigIncomplete, Conflict, BrokerUnreachable), headers=("ETag",),
        recover=do.switched_as_answered,
    ),
    Endpoint(
        "POST", "/trading/config/disable", do.disable, Right.ADMIN, "Disable trading (removes AMQP queues)",
        invalid=Invalid, errors=(Conflict, BrokerUnreachable), headers=("ETag",), recover=do.switched_as_answered,
    ),
    Endpoint(
        "GET", "/trading/connection-details", do.connection_details, Right.WRITE,
        "Get AMQP connection details for partner integration", invalid=Invalid,
    ),
    Endpoint(
        "GET", "/trading/plants", do.plants, Right.READ, "The organisation's plants", query=PageQuery,
    ),
    Endpoint(
        "POST", "/trading/plants/sync", do.sync, Right.WRITE, "Force immediate plant sync from ESM",
        invalid=Invalid, errors=(EsmNotConfigured, EsmUnreachable, Conflict), limit="syncs",
    ),
    Endpoint(
        "GET", f"{_PLANT}/command-log", do.command_log, Right.READ, "ESM command relay audit trail",
        query=CommandLogQuery, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/config", do.plant_config, Right.READ, "Get current plant config from ESM", errors=_OF_LINKED,
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
        "GET", f"{_PLANT}/telemetry", do.telemetry, Right.READ, "Query trading telemetry (AMQP-sourced)",
        query=WindowQuery, errors=(PlantNotFound,),
    ),
    Endpoint(
        "GET", f"{_PLANT}/telemetry/latest", do.latest, Right.READ, "Latest trading telemetry snapshot",
        malformed_id=InvalidUuid, errors=(PlantNotFound,),
    ),
)  # fmt: skip
