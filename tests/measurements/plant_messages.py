"""What plants publish and the sample that it means: whole numbers of quarters, so that sums are exact in any order."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.ports import Message
from domain import vcp
from projections.samples import Sample


def sample(plant_id: UUID, time: datetime) -> Sample:
    """The same for the same plant and time, with a null now and then."""
    seed = plant_id.int % 100_003 + int(time.timestamp()) * 7919
    soc, grid, pv, load, battery = (seed // prime % 400 / 4 for prime in (1, 3, 7, 11, 13))
    return Sample(plant_id, time, soc, grid - 50, pv, load if seed % 10 else None, battery - 50)


def realtime(prefix: str, site: str, sample: Sample) -> Message:
    payload = {
        "gridPowerKw": sample.grid_power,
        "fvePowerKw": sample.fve_power,
        "batteryPowerKw": sample.invertor_power,
        "consumptionPowerKw": sample.consumption,
        "socPercent": sample.soc,
        "fveReg": sample.fve_reg,
        "availableBatteryEnergyKwh": sample.available_battery_energy,
        "batteryTemperatureCelsius": sample.battery_temperature,
        "currentOperatingMode": sample.operating_mode,
        "dataQuality": sample.data_quality,
    }
    message_id = vcp.message_id(sample.plant_id, sample.time.isoformat())
    body = msgspec.json.encode(vcp.emit(message_id, site, payload, sample.time))
    return Message("vcp", f"{prefix}.event.telemetry.realtime.{site}", body, str(message_id))
