"""One believable example of each body, by handler or by model, for the OpenAPI document: one story, truly answered."""

from typing import Any

from interfaces.http.bodies import ConnectionDetails
from interfaces.http.services import PartnerBroker

_ORGANIZATION = "7bc05553-4b68-44e8-b7bc-37be63c6d9e9"
_PLANT = "8c2c37ff-79f6-40ba-b98d-a2bfedecc0a3"
_TIME = "2026-08-24T14:15:22.000Z"
_BUCKET = "2026-08-24T14:15:00Z"
_META = {"page": 1, "limit": 20, "total": 1, "totalPages": 1}

_TRADING_CONFIG = {
    "id": "497f6eca-6276-4993-bfeb-53cbbbba6f08",
    "organizationId": _ORGANIZATION,
    "status": "ENABLED",
    "esmApiUrl": "https://esm.example.com/api",
    "esmClientId": "wattledger",
    "hasEsmCredentials": True,
    "queuePrefix": "acme",
    "lastSyncAt": _TIME,
    "lastSyncError": None,
    "createdAt": _TIME,
    "updatedAt": _TIME,
}
_BLOCKS = [{"from": "00:00", "to": "24:00", "pBatMin": -50.0, "pBatMax": 50.0, "socMin": 10.0, "socMax": 95.0}]
_CONFIG_LOG_ENTRY = {
    "id": 4711,
    "plantId": _PLANT,
    "requestedBy": "d834780c-1e92-44d4-9ca3-e84824c5c502",
    "validateOnly": False,
    "configSnapshot": {"version": 1, "timeConfigs": _BLOCKS},
    "requestCode": "REQ-000001",
    "resultCode": "OK",
    "message": "The plan is applied",
    "isError": False,
    "isTerminal": True,
    "sentAt": _TIME,
    "respondedAt": _TIME,
    "createdAt": _TIME,
}
_COMMAND_LOG_ENTRY = {
    "id": "3b9f5b1e-52d4-5d0f-9a4e-7a1d0c6f2e55",
    "organizationId": _ORGANIZATION,
    "commandType": "SITE_SETPOINT",
    "messageId": "0b0cbd6f-6b3a-4f3c-9a51-3f4a4f6c1d11",
    "correlationId": "dispatch-17",
    "routingKey": "acme.command.site-setpoint",
    "siteId": "esm-001",
    "payload": {"type": "POWER", "targetValueKw": 40, "direction": "EXPORT", "validFrom": _TIME},
    "status": "EXECUTED",
    "ackStatus": "ACK",
    "rejectionReason": None,
    "executedAt": _TIME,
    "createdAt": _TIME,
}
_TELEMETRY = {
    "plant_id": _PLANT,
    "time": _TIME,
    "soc": 61.5,
    "grid_power": -12.4,
    "fve_power": 48.0,
    "consumption": 15.6,
    "invertor_power": 20.0,
    "fve_reg": 100.0,
}

EXAMPLES: dict[str, Any] = {
    "TradingConfigChange": {
        "esmApiUrl": "https://esm.example.com/api",
        "esmClientId": "wattledger",
        "esmClientSecret": "s3cr3t",
    },
    "PlantConfigChange": {"timeConfigs": _BLOCKS, "validateOnly": False},
    **dict.fromkeys(("config", "change_config", "enable"), _TRADING_CONFIG),
    "disable": {**_TRADING_CONFIG, "status": "DISABLED"},
    "connection_details": ConnectionDetails.of(
        PartnerBroker("broker.example.com", 5671, "/"), "acme", "acme"
    ).model_dump(by_alias=True),
    "plants": {
        "data": [
            {
                "id": _PLANT,
                "externalPlantId": "esm-001",
                "name": "Brno depot",
                "linked": True,
                "lastSeenAt": _TIME,
                "lastTelemetryAt": _TIME,
            }
        ],
        "meta": _META,
    },
    "sync": {"synced": 1, "errors": 0},
    "plant_config": {
        "plantId": "esm-001",
        "version": 2,
        "configEnabled": True,
        "esiState": "ACTIVE",
        "timeConfigs": _BLOCKS,
    },
    "change_plant_config": _CONFIG_LOG_ENTRY,
    "validate_plant_config": {
        **_CONFIG_LOG_ENTRY,
        "validateOnly": True,
        "configSnapshot": {"version": 2, "timeConfigs": _BLOCKS},
        "requestCode": "REQ-000002",
        "resultCode": "VALID",
        "message": "The plan is valid",
    },
    "config_log": {"data": [_CONFIG_LOG_ENTRY], "meta": _META},
    "command_log": {"data": [_COMMAND_LOG_ENTRY], "meta": _META},
    "command": {
        **_COMMAND_LOG_ENTRY,
        "relayedAt": _TIME,
        "plantConfig": {"version": 1, "timeConfigs": _BLOCKS, "appliedAt": _TIME},
    },
    "audit": {
        "data": [
            {
                "position": 4711,
                "eventId": "1c1de0a1-6c0d-4f0f-bb3b-1e4f8b3b6c11",
                "recordedAt": _TIME,
                "organizationId": _ORGANIZATION,
                "plantId": None,
                "streamId": "497f6eca-6276-4993-bfeb-53cbbbba6f08",
                "version": 2,
                "topic": "trading-config:partner-changed",
                "actor": "user:d834780c-1e92-44d4-9ca3-e84824c5c502",
                "source": "http",
                "requestId": "5f0c2f0e-7d3c-4a43-8a44-0a4c8f8a5b11",
                "correlationId": "5f0c2f0e-7d3c-4a43-8a44-0a4c8f8a5b11",
                "causationId": None,
                "state": {
                    "esm_api_url": "https://esm.example.com/api",
                    "esm_client_id": "wattledger",
                    "timestamp": "2026-08-24T14:15:21.998877Z",
                },
            }
        ],
        "meta": {"limit": 20, "next": None},
    },
    "telemetry": [{**_TELEMETRY, "time": _BUCKET}],
    "latest": _TELEMETRY,
    "export_telemetry": "plant_id,time,soc,grid_power,fve_power,consumption,invertor_power,fve_reg,"
    "available_battery_energy,battery_temperature,operating_mode,data_quality\r\n"
    f"{_PLANT},2026-08-24T14:15:22.123456Z,61.5,-12.4,48.0,15.6,20.0,100.0,,,,\r\n",
    "export_meters": "plant_id,meter_id,time,energy_kwh\r\n"
    f"{_PLANT},grid,2026-08-24T14:11:00Z,1204.5\r\n{_PLANT},grid,2026-08-24T14:12:00Z,1205.75\r\n",
    "stream_telemetry": "retry: 2000\n\n:\nid: 81233-1787580921000000\n\nid: 81234-1787580922000000\ndata: "
    f'{{"plant_id":"{_PLANT}","time":"{_TIME}","soc":61.5,"grid_power":-12.4,"fve_power":48.0,"consumption":15.6,'
    '"invertor_power":20.0,"fve_reg":100.0}\n\n',
    "meters": [{"plant_id": _PLANT, "meter_id": "grid", "time": _BUCKET, "interval": "PT5M", "energy": 1.25}],
}
