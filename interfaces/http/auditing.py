"""What auditors ask over HTTP: the organisation's events, and what things were like at a moment."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import anyio
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from application.context import with_user
from domain.catalogue import EVENTS
from domain.day_plan import TimeBlock
from domain.errors import NotFound
from domain.relayed_command import RelayedCommand
from interfaces.http.bodies import PlantConfigEntry, Time
from interfaces.http.endpoint import Call
from projections import as_of, plants, trading_configs
from projections.as_of import AppliedConfig
from projections.audit_log import AuditFilter, AuditPage, audit_page_async, unveiled_page
from projections.command_log import CommandLogEntry, command_of
from projections.page import Page, PageQuery
from projections.plants import PlantEntry
from projections.trading_configs import TradingConfigEntry

KINDS = sorted({name for topic in EVENTS for name in (topic, topic.partition(":")[0])})
PRINTABLE = r"^[^\x00-\x1f\x7f]{1,200}$"


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _kind(name: str) -> str:
    if name not in KINDS:
        raise ValueError("there are no events of this kind")
    return name


Moment = Annotated[Time, AfterValidator(_utc)]
AsOf = Annotated[
    Moment | None, Field(alias="asOf", description="A moment (ISO 8601): what our event log says was so then")
]
Kind = Annotated[str, AfterValidator(_kind), Field(json_schema_extra={"enum": list(KINDS)})]


class AsOfQuery(BaseModel):
    """Now, or as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: AsOf = None


class PlantsQuery(PageQuery):
    as_of: AsOf = None


class AuditQuery(BaseModel):
    """Everything that is given must hold. A naive time is UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind | None = Field(default=None, description="Events of this topic, or of this aggregate")
    plant_id: UUID | None = Field(default=None, alias="plantId", description="Events of this plant and its commands")
    actor: str | None = Field(default=None, pattern=PRINTABLE, description="Who did it, as the entries print it")
    from_: Moment | None = Field(default=None, alias="from", description="Recorded at or after (ISO 8601)")
    to: Moment | None = Field(default=None, description="Recorded at or before (ISO 8601)")
    id: str | None = Field(default=None, pattern=PRINTABLE, description="A request's, correlation's or message's id")
    before: int | None = Field(default=None, ge=1, lt=2**63, description="Older than this position: `meta.next`")
    limit: int = Field(default=20, ge=1, le=100, description="Items per page")


class CommandDetails(CommandLogEntry):
    """A command with the plan that was in force when it was relayed; null where none was, by our log. Times in UTC."""

    relayed_at: datetime | None
    plant_config: AppliedConfig | None


async def audit(call: Call, query: AuditQuery) -> AuditPage:
    secrets = call.services.trading.secrets
    actor = query.actor
    if actor is not None and actor.startswith("user:"):
        actor = with_user(actor, await anyio.to_thread.run_sync(secrets.veil, call.organization_id))
    wanted = AuditFilter(
        organization_id=call.organization_id,
        plant_id=query.plant_id,
        topic=query.kind,
        actor=actor,
        id=query.id,
        since=query.from_,
        until=query.to,
        before=query.before,
    )
    return unveiled_page(await audit_page_async(call.connection, wanted, query.limit), await call.unveil())


async def command(call: Call, plant_id: UUID, command_id: UUID) -> CommandDetails:
    entry = await command_of(call.connection, plant_id, command_id)
    if entry is None:
        raise NotFound("Command not found")
    relayed = await as_of.recorded(call.connection, command_id, RelayedCommand.Relayed.TOPIC)
    plan = await as_of.plan_as_of(call.connection, call.services.decode, plant_id, relayed[0]) if relayed else None
    return CommandDetails(**dict(entry), relayed_at=relayed and relayed[1], plant_config=plan)


async def config_as_of(call: Call, moment: datetime) -> TradingConfigEntry:
    position = await _marked(call, moment)
    entry = await as_of.trading_config_as_of(call.connection, call.services.decode, call.organization_id, position)
    return trading_configs.unveiled(entry, await call.unveil())


async def plants_as_of(call: Call, query: PlantsQuery, moment: datetime) -> Page[PlantEntry]:
    position = await _marked(call, moment)
    page = await as_of.plants_as_of(call.connection, call.services.decode, call.organization_id, query, position)
    return plants.unveiled(page, await call.unveil())


async def plant_config_as_of(call: Call, plant_id: UUID, moment: datetime) -> PlantConfigEntry:
    """By our log, which knows the plans that went through us: not what was changed at the ESM itself."""
    async with call.services.queries.connection() as call.lent:
        position = await _marked(call, moment)
        plant = await as_of.plant_as_of(call.connection, call.services.decode, plant_id, position)
        plan = await as_of.plan_as_of(call.connection, call.services.decode, plant_id, position)
    if plant is None or plan is None:
        raise NotFound("No plan had been applied through us by then")
    return PlantConfigEntry(
        plant_id=plant.external_plant_id,
        version=plan.version or 0,
        config_enabled=plant.description.config_enabled is not False,
        esi_state=plant.description.esi_state,
        # Not validated: it is history, whatever the rules are now.
        time_configs=[TimeBlock.model_construct(**block) for block in plan.time_configs],
    )


async def _marked(call: Call, moment: datetime) -> int:
    """The position that the answer is as of, which its header tells."""
    position = await as_of.position_at(call.connection, moment)
    call.answer_headers["X-As-Of"] = str(position)
    return position
