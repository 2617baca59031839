"""A plant's configuration at its ESM: read it live, change it, and see each change to its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from eventsourcing.domain import AggregateEvent
from eventsourcing.persistence import IntegrityError
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from application.context import Metadata, metadata
from application.event_log import EventLog
from application.ports import EsmAnswer, EsmClient, EsmPlantConfig, Partner
from application.trading import Trading
from domain.day_plan import MAX_BLOCKS, TimeBlock, problems
from domain.errors import ChangeInFlight, EsmUnreachable, Invalid, PlantEsmNotConfigured, PlantNotFound, PlantNotLinked
from domain.plant import Plant
from domain.plant_config import ANSWER_TIMEOUT, Change, PlantConfig, TimeConfig

UNREACHABLE = "ESM_UNREACHABLE"
TIMED_OUT = "ESM_TIMEOUT"
CALL_TIMEOUT = timedelta(minutes=1)

Entry = list[tuple[int, AggregateEvent]]
"""One entry of the config log: the events of one change with their positions."""


class PlantConfigChange(BaseModel):
    """The day plan to send."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    time_configs: list[TimeBlock] = Field(min_length=1, max_length=MAX_BLOCKS, description="Time configuration blocks")
    validate_only: bool = Field(default=False, strict=True, description="If true, validate only without applying")

    @field_validator("time_configs")
    @classmethod
    def _is_a_day_plan(cls, blocks: list[TimeBlock]) -> list[TimeBlock]:
        found = problems(blocks)
        if found:
            raise Invalid(errors=[str(problem) for problem in found])
        return blocks


@dataclass(frozen=True)
class PlantConfigs:
    events: EventLog
    esm: EsmClient
    trading: Trading

    def current(self, organization_id: UUID, plant_id: UUID) -> EsmPlantConfig:
        """What the ESM has now; raises EsmUnreachable."""
        plant, partner = self._linked(organization_id, plant_id)
        return self.esm.plant_config(partner, plant.external_plant_id)

    def change(self, organization_id: UUID, plant_id: UUID, change: PlantConfigChange, requested_by: UUID) -> Entry:
        """Records that it is sent, sends it, records the answer. An ESM that can't be reached is an answer, too; one
        that gave no good answer is asked what it has now."""
        plant, partner = self._linked(organization_id, plant_id)
        config = self.events.find(PlantConfig, PlantConfig.create_id(plant_id)) or PlantConfig(
            organization_id=organization_id, plant_id=plant_id
        )
        if config.in_flight is not None:
            raise ChangeInFlight
        version, unsent = self._version(partner, plant)
        blocks = [cast("TimeConfig", block.as_json()) for block in change.time_configs]
        veiled = self.trading.secrets.veil(organization_id)(str(requested_by))
        config.send_change(uuid4(), veiled, version, blocks, validate_only=change.validate_only)
        try:
            entry = self._save(config)
        except IntegrityError:
            raise ChangeInFlight from None
        return entry + self._record_answer(config, unsent or self._send(partner, plant, config, change))

    def finish(self, plant_id: UUID) -> None:
        """Asks the ESM for the end of a change that it answered with "later", and gives up after an hour."""
        config = self.events.find(PlantConfig, PlantConfig.create_id(plant_id))
        if config is None or config.in_flight is None:
            return
        change = config.in_flight
        age = datetime.now(UTC) - change.sent_at
        if not change.answered and age < CALL_TIMEOUT:
            return  # its own request is still at it
        late = age > ANSWER_TIMEOUT
        answer = self._later_answer(config, change, late)
        if late and not (answer and answer.is_terminal):
            answer = EsmAnswer(change.request_code, TIMED_OUT, "The ESM gave no final answer in time", True, True)
        if answer is not None:
            self._record_answer(config, answer, self.events.following(config.id))

    def _linked(self, organization_id: UUID, plant_id: UUID) -> tuple[Plant, Partner]:
        plant = self.events.find(Plant, plant_id)
        if plant is None or plant.organization_id != organization_id:
            raise PlantNotFound
        if not plant.linked:
            raise PlantNotLinked
        partner = self.trading.partner(self.trading.load(organization_id))
        if partner is None:
            raise PlantEsmNotConfigured
        return plant, partner

    def _version(self, partner: Partner, plant: Plant) -> tuple[int | None, EsmAnswer | None]:
        """The ESM's, or the answer to a change that can't be sent without it."""
        try:
            return self.esm.plant_config(partner, plant.external_plant_id).version, None
        except EsmUnreachable as error:
            return None, _nothing_sent(str(error))

    def _send(self, partner: Partner, plant: Plant, config: PlantConfig, change: PlantConfigChange) -> EsmAnswer:
        sent = config.in_flight
        assert sent is not None
        assert sent.version is not None
        try:
            return self.esm.update_config(
                partner, plant.external_plant_id, sent.version, change.time_configs, validate_only=sent.validate_only
            )
        except EsmUnreachable as error:
            # It may have been applied all the same: then the ESM has it now.
            seen = None if sent.validate_only else self._later_answer(config, sent, late=False)
            return seen or EsmAnswer(None, UNREACHABLE, str(error), True, True)

    def _later_answer(self, config: PlantConfig, change: Change, late: bool) -> EsmAnswer | None:
        """What the ESM says now of an open change, None while it can't be asked."""
        plant = self.events.load(Plant, config.plant_id)
        trading = self.trading.find(config.organization_id)
        partner = self.trading.partner(trading) if trading else None
        if partner is None:
            return None
        try:
            if change.request_code is not None:
                return self.esm.request_status(partner, change.request_code)
            return _outcome(change, self.esm.plant_config(partner, plant.external_plant_id), late)
        except EsmUnreachable:
            return None

    def _record_answer(self, config: PlantConfig, answer: EsmAnswer, who: Metadata | None = None) -> Entry:
        assert config.in_flight is not None
        config.answer_change(
            config.in_flight.id,
            request_code=answer.request_code,
            result_code=answer.result_code,
            message=answer.message,
            is_error=answer.is_error,
            is_terminal=answer.is_terminal,
        )
        return self._save(config, who)

    def _save(self, config: PlantConfig, who: Metadata | None = None) -> Entry:
        recordings = self.events.save(config, metadata=who or metadata())
        return [(r.notification.id, cast("AggregateEvent", r.domain_event)) for r in recordings]


def _nothing_sent(why: str) -> EsmAnswer:
    return EsmAnswer(None, UNREACHABLE, f"Nothing was sent: {why}", True, True)


def _outcome(change: Change, now: EsmPlantConfig, late: bool) -> EsmAnswer | None:
    """Of a change whose answer was lost: the ESM's config tells whether it was applied. Until it is late, the ESM may
    still be at it."""
    if change.version is None:
        return _nothing_sent("the ESM could not be reached")
    blocks: Sequence[Any] = [block.as_json() for block in now.time_configs]
    if change.validate_only:
        return EsmAnswer(None, "ANSWER_LOST", "The answer was lost; a dry run applies nothing", True, True)
    if blocks == list(change.time_configs) and now.version != change.version:
        return EsmAnswer(None, "APPLIED", "The answer was lost; the ESM has this plan now", False, True)
    if not late:
        return None
    return EsmAnswer(None, "ANSWER_LOST", "The answer was lost; the ESM has another plan now", True, True)
