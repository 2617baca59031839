"""The samples of the published API reference, as it prints them: every field with its casing and type."""

from typing import Any, Literal, NamedTuple

UUID_ = "497f6eca-6276-4993-bfeb-53cbbbba6f08"
TIME = "2019-08-24T14:15:22Z"

TRADING_CONFIG = {
    "createdAt": TIME, "esmApiUrl": "string", "esmClientId": "string", "hasEsmCredentials": True, "id": UUID_,
    "lastSyncAt": TIME, "lastSyncError": "string", "organizationId": UUID_, "queuePrefix": "string",
    "status": "ENABLED", "updatedAt": TIME,
}  # fmt: skip
QUEUE = {"description": "string", "direction": "inbound", "name": "string", "routingKey": "string"}
CONNECTION_DETAILS = {
    "authInstructions": "string", "authMethod": "string", "exchange": "string", "host": "string", "port": 0,
    "queuePrefix": "string", "queues": [QUEUE], "vhost": "string",
}  # fmt: skip
SYNC = {"errors": 0, "synced": 0}
META = {"limit": 0, "page": 0, "total": 0, "totalPages": 0}
COMMAND_LOG_ENTRY = {
    "ackStatus": "string", "commandType": "string", "correlationId": "string", "createdAt": TIME, "executedAt": TIME,
    "id": UUID_, "messageId": "string", "organizationId": UUID_, "payload": {}, "rejectionReason": "string",
    "routingKey": "string", "siteId": "string", "status": "string",
}  # fmt: skip
TIME_CONFIG = {"from": "00:00", "pBatMax": 0, "pBatMin": 0, "socMax": 0, "socMin": 0, "to": "06:00"}
PLANT_CONFIG = {
    "configEnabled": True, "esiState": "string", "plantId": "string", "timeConfigs": [TIME_CONFIG], "version": 0,
}  # fmt: skip
CONFIG_LOG_ENTRY = {
    "configSnapshot": {}, "createdAt": TIME, "id": 0, "isError": True, "isTerminal": True, "message": "string",
    "plantId": UUID_, "requestCode": "string", "requestedBy": UUID_, "respondedAt": TIME, "resultCode": "string",
    "sentAt": TIME, "validateOnly": True,
}  # fmt: skip
METER_READING = {"energy": 0, "interval": "string", "meter_id": "string", "plant_id": UUID_, "time": TIME}
TELEMETRY = {
    "consumption": 0, "fve_power": 0, "fve_reg": 0, "grid_power": 0, "invertor_power": 0, "plant_id": UUID_,
    "soc": 0, "time": TIME,
}  # fmt: skip
PLANT_CONFIG_BODY = {"timeConfigs": [TIME_CONFIG]}


class Route(NamedTuple):
    """`least` is the least role, `invalid` the code of a 400 that the reference prints."""

    method: Literal["GET", "POST"]
    path: str
    answer: Any
    least: Literal["VIEWER", "OPERATOR", "ORG_ADMIN"]
    invalid: str | None = None
    body: Any = None

    @property
    def of_plant(self) -> bool:
        return "{plant_id}" in self.path

    def at(self, plant_id: object) -> str:
        return self.path.format(plant_id=plant_id)


PLANT = "/trading/plants/{plant_id}"
ROUTES = (
    Route("GET", "/trading/config", TRADING_CONFIG, "VIEWER"),
    Route("POST", "/trading/config", TRADING_CONFIG, "ORG_ADMIN", "VALIDATION_ERROR", {}),
    Route("POST", "/trading/config/disable", TRADING_CONFIG, "ORG_ADMIN"),
    Route("POST", "/trading/config/enable", TRADING_CONFIG, "ORG_ADMIN", "TRADING_CONFIG_INCOMPLETE"),
    Route("GET", "/trading/connection-details", CONNECTION_DETAILS, "OPERATOR"),
    Route("POST", "/trading/plants/sync", SYNC, "OPERATOR", "ESM_NOT_CONFIGURED"),
    Route("GET", f"{PLANT}/command-log", {"data": [COMMAND_LOG_ENTRY], "meta": META}, "VIEWER", "BAD_REQUEST"),
    Route("GET", f"{PLANT}/config", PLANT_CONFIG, "VIEWER", "BAD_REQUEST"),
    Route("POST", f"{PLANT}/config", CONFIG_LOG_ENTRY, "OPERATOR", "BAD_REQUEST", PLANT_CONFIG_BODY),
    Route("GET", f"{PLANT}/config-log", {"data": [CONFIG_LOG_ENTRY], "meta": META}, "VIEWER", "BAD_REQUEST"),
    Route("POST", f"{PLANT}/config/validate", CONFIG_LOG_ENTRY, "OPERATOR", "BAD_REQUEST", PLANT_CONFIG_BODY),
    Route("GET", f"{PLANT}/meters", [METER_READING], "VIEWER", "BAD_REQUEST"),
    Route("GET", f"{PLANT}/telemetry", [TELEMETRY], "VIEWER", "BAD_REQUEST"),
    Route("GET", f"{PLANT}/telemetry/latest", TELEMETRY, "VIEWER", "INVALID_UUID"),
)
