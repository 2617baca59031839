"""One canonical example of each message, to be varied by name."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain.day_plan import TimeBlock
from domain.organisation import Organisation
from domain.plant import Plant, PlantDescription
from domain.plant_alarm import PlantAlarm
from domain.plant_config import PlantConfig
from domain.queue_prefix import QueuePrefix
from domain.trading_config import TradingConfig
from tests.given import ID, Fact, fact

ACME = ID
"""The organisation of all examples."""

RIVAL = UUID("22222222-2222-4222-8222-222222222222")
KEY = UUID("33333333-3333-4333-8333-333333333333")
PLANT = UUID("44444444-4444-4444-8444-444444444444")
CHANGE = UUID("55555555-5555-4555-8555-555555555555")
USER = UUID("66666666-6666-4666-8666-666666666666")
EXPIRY = datetime(2027, 1, 1, tzinfo=UTC)
URL = "https://esm.example.com/api"
CLIENT = "wattledger"


# --- organisation
def organisation_created(slug: str = "acme", name: str = "Acme Energy") -> Fact:
    return fact(Organisation.Created, slug=slug, name=name)


def key_minted(key_id: UUID = KEY, scopes: tuple[str, ...] = ("trading:connect",), **changes: Any) -> Fact:
    says = {"name": "partner", "secret_hash": "c0ffee", "signing_key_version": 1, "expires_at": EXPIRY} | changes
    return fact(Organisation.KeyMinted, key_id=key_id, scopes=list(scopes), **says)


def key_revoked(key_id: UUID = KEY) -> Fact:
    return fact(Organisation.KeyRevoked, key_id=key_id)


def closed() -> Fact:
    return fact(Organisation.Closed)


def erased() -> Fact:
    return fact(Organisation.Erased)


# --- queue prefix
def prefix_created(organization_id: UUID = ACME, prefix: str = "acme-north", *, is_slug: bool = False) -> Fact:
    return fact(QueuePrefix.Created, prefix=prefix, organization_id=organization_id, is_slug=is_slug)


def prefix_claimed(organization_id: UUID = ACME) -> Fact:
    return fact(QueuePrefix.Claimed, organization_id=organization_id)


def prefix_released() -> Fact:
    return fact(QueuePrefix.Released)


# --- trading config
def created(queue_prefix: str = "acme") -> Fact:
    return fact(TradingConfig.Created, organization_id=ACME, queue_prefix=queue_prefix)


def partner_changed(esm_api_url: str | None = URL, esm_client_id: str | None = CLIENT) -> Fact:
    return fact(TradingConfig.PartnerChanged, esm_api_url=esm_api_url, esm_client_id=esm_client_id)


def credentials_set(secret_version: int = 1) -> Fact:
    return fact(TradingConfig.CredentialsSet, secret_version=secret_version)


def credentials_cleared() -> Fact:
    return fact(TradingConfig.CredentialsCleared)


def queue_prefix_changed(queue_prefix: str = "acme-north") -> Fact:
    return fact(TradingConfig.QueuePrefixChanged, queue_prefix=queue_prefix)


def enabled() -> Fact:
    return fact(TradingConfig.Enabled)


def disabled() -> Fact:
    return fact(TradingConfig.Disabled)


def config_closed() -> Fact:
    return fact(TradingConfig.Closed)


def synced(synced: int = 3, errors: tuple[str, ...] = ()) -> Fact:
    return fact(TradingConfig.Synced, synced=synced, errors=list(errors))


def sync_failed(error: str = "ESM can't be reached") -> Fact:
    return fact(TradingConfig.SyncFailed, error=error)


# --- plant
def registered(external_plant_id: str = "esm-001", name: str = "Brno depot") -> Fact:
    return fact(Plant.Created, organization_id=ACME, external_plant_id=external_plant_id, name=name)


def linked() -> Fact:
    return fact(Plant.Linked)


def description(name: str = "Brno depot", **changes: Any) -> PlantDescription:
    usual: dict[str, Any] = {"capacity_kwh": 200.0, "fve_peak_power_kwp": 120.0, "plant_with_load": True}
    return PlantDescription(name, **usual | changes)


def described(as_what: PlantDescription | None = None) -> Fact:
    return fact(Plant.Described, description=as_what or description())


def missed(last_seen_at: datetime | None = None) -> Fact:
    return fact(Plant.Missed, last_seen_at=last_seen_at)


def unlinked() -> Fact:
    return fact(Plant.Unlinked)


def seen_again() -> Fact:
    return fact(Plant.SeenAgain)


# --- plant config
def block(start: str = "00:00", end: str = "24:00", **changes: Any) -> TimeBlock:
    """A time block of ± 50 kW."""
    usual = {"pBatMin": -50.0, "pBatMax": 50.0, "socMin": 10.0, "socMax": 90.0}
    return TimeBlock.model_validate({"from": start, "to": end} | usual | changes)


def plant_config_created() -> Fact:
    return fact(PlantConfig.Created, organization_id=ACME, plant_id=PLANT)


def change_sent(change_id: UUID = CHANGE, version: int | None = 1, *, validate_only: bool = False) -> Fact:
    return fact(
        PlantConfig.ChangeSent,
        plant_id=PLANT,
        change_id=change_id,
        requested_by=str(USER),
        validate_only=validate_only,
        version=version,
        time_configs=[block().as_json()],
    )


def change_answered(change_id: UUID = CHANGE, **changes: Any) -> Fact:
    """Applied at once; `later()` is the other usual answer."""
    usual = {"request_code": "REQ-1", "result_code": "OK", "message": "Applied", "is_error": False, "is_terminal": True}
    return fact(PlantConfig.ChangeAnswered, change_id=change_id, **usual | changes)


def later(change_id: UUID = CHANGE, **changes: Any) -> Fact:
    usual = {"result_code": "ACCEPTED", "message": "Later", "is_terminal": False}
    return change_answered(change_id, **usual | changes)


# --- plant alarm
MEASURED = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)


def alarm_created() -> Fact:
    return fact(PlantAlarm.Created, organization_id=ACME, plant_id=PLANT)


def alarm_raised(measured_at: datetime = MEASURED, **changes: Any) -> Fact:
    usual = {"constraint": "SOC", "value": 95.0, "minimum": 10.0, "maximum": 90.0}
    told = {"queue_prefix": "acme", "site_id": "esm-001"}
    return fact(PlantAlarm.Raised, measured_at=measured_at, **usual | told | changes)


def alarm_cleared(
    measured_at: datetime = MEASURED + timedelta(minutes=1), raised_at: datetime = MEASURED, **changes: Any
) -> Fact:
    told = {"constraint": "SOC", "value": 90.0, "queue_prefix": "acme", "site_id": "esm-001"}
    return fact(PlantAlarm.Cleared, measured_at=measured_at, raised_at=raised_at, **told | changes)
