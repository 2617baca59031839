"""Random histories of two organisations, with what the read models said after each step."""

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from application.context import Metadata, acting
from domain.organisation import Organisation
from domain.plant import Plant, PlantDescription
from domain.plant_config import PlantConfig
from domain.relayed_command import RelayedCommand
from domain.trading_config import TradingConfig
from tests.benchmarks.history import command
from tests.event_log.conftest import Log, Rows

BLOCK: Any = {"from": "00:00", "to": "24:00", "pBatMin": -5.0, "pBatMax": 5.0, "socMin": 10.0, "socMax": 90.0}
ACTORS = ("user:11111111-1111-4111-8111-111111111111", "cli:root", "scheduler", "partner:acme")


@dataclass
class Moment:
    """`position` is the log's last, `at` a time after it and before the next."""

    at: datetime
    position: int
    rows: Rows


@dataclass
class History:
    log: Log
    seed: int
    moments: list[Moment] = field(default_factory=list)
    organisations: list[UUID] = field(default_factory=list)
    plants: list[Plant] = field(default_factory=list)
    configs: dict[UUID, PlantConfig] = field(default_factory=dict)
    commands: list[RelayedCommand] = field(default_factory=list)
    partners: dict[UUID, TradingConfig] = field(default_factory=dict)

    def live(self, steps: int, *, watched: bool = True) -> "History":
        self.rng = random.Random(self.seed)
        for slug in ("acme", "bolt"):
            organisation = Organisation(slug=slug, name=slug)
            config = TradingConfig(organization_id=organisation.id, queue_prefix=slug)
            self.organisations.append(organisation.id)
            self.partners[organisation.id] = config
            self._save(organisation, config)
        follower = self.log.follower()
        for _ in range(steps):
            self._step()
            if watched:
                follower.catch_up()
                [[now]] = self.log.execute("SELECT clock_timestamp()")
                self.moments.append(Moment(now, self.log.end(), self.log.rows()))
        follower.catch_up()
        return self

    def _step(self) -> None:
        organization_id = self.rng.choice(self.organisations)
        mine = [plant for plant in self.plants if plant.organization_id == organization_id]
        what = self.rng.choice(["plant", "link", "change", "command", "command", "go on", "go on", "partner"])
        if what == "plant" or not mine:
            plant = Plant(organization_id, f"P{len(self.plants)}", "new")
            self.plants.append(plant)
            self._save(plant)
            return
        plant = self.rng.choice(mine)
        match what:
            case "link":
                plant.link(PlantDescription(f"name {self.rng.random()}"))
                self._save(plant)
            case "change":
                config = self.configs.setdefault(plant.id, PlantConfig(organization_id, plant.id))
                change_id = uuid4()
                config.send_change(change_id, str(uuid4()), self.rng.randrange(9), [BLOCK], validate_only=False)
                error = self.rng.random() < 0.3
                config.answer_change(
                    change_id, request_code="R", result_code="OK", message=None, is_error=error, is_terminal=True
                )
                self._save(config)
            case "partner":
                partner = self.partners[organization_id]
                partner.change_partner(f"https://{self.rng.random()}.example.com", "client")
                self._save(partner)
            case "go on" if self.commands:
                going = self.rng.choice(self.commands)
                going.relay()
                if self.rng.random() < 0.5:
                    going.execute(going.modified_on)
                self._save(going)
            case _:
                issued = command(self.rng, organization_id, plant.id, len(self.commands))
                issued.accept(issued.created_on)
                self.commands.append(issued)
                self._save(issued)

    def _save(self, *aggregates: Any) -> None:
        with acting(Metadata(self.rng.choice(ACTORS), "cli")):
            self.log.events.save(*aggregates)
