"""Messages that are nearly right: a strategy that takes a right one of two organisations and turns some of it wrong."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from application.ports import Delivery
from domain.canonical import NoCanonicalForm, canonical
from tests.relay.test_fuzz import FIELDS, JSON
from tests.relay.world import PAYLOADS, World, enabled

QUEUES = ("vcp.acme.command", "vcp.rival.command", "vcp.emergency", "vcp.acme.schedule", "vcp.acme.config")
PREFIXES = ("acme", "rival", "nobody")


@dataclass(frozen=True)
class Rivals:
    """Two organisations in one world, each with a plant `esm-001` of its own."""

    world: World
    rival_id: UUID
    rival_plant_id: UUID

    @classmethod
    def meet(cls) -> "Rivals":
        world = World()
        with world.acting():
            rival_id = world.organisations.create("rival").id
        world.change_config(enabled, rival_id)
        return cls(world, rival_id, world.add_plant(rival_id).id)

    def owner(self, prefix: str) -> tuple[UUID, UUID]:
        """The organisation and the plant that a prefix may reach."""
        mine = (self.world.organization_id, self.world.plant_id)
        return {"acme": mine, "rival": (self.rival_id, self.rival_plant_id)}[prefix]

    @property
    def sites(self) -> list[str]:
        return ["esm-001", str(self.world.plant_id), str(self.rival_plant_id), "esm-404"]


@st.composite
def deliveries(draw: st.DrawFn, rivals: Rivals) -> Delivery:
    """Signed with acme's key, or not at all; perhaps to where it does not belong, perhaps spoilt after signing."""
    world = rivals.world
    kind = draw(st.sampled_from(sorted(PAYLOADS)))
    payload = PAYLOADS[kind] | draw(st.dictionaries(st.sampled_from(sorted(PAYLOADS[kind])), JSON, max_size=1))
    make = draw(st.sampled_from([world.body, world.unsigned]))
    known = {"messageId": str(UUID(int=draw(st.integers(0, 40))))} if draw(st.booleans()) else {}
    body = make(kind, site_id=draw(st.sampled_from(rivals.sites)), payload=_encodable(payload), **known)
    spoilt = draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=1))
    if spoilt:
        body = json.dumps(json.loads(body) | spoilt).encode()
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(body)))
        body = body[:cut] + draw(st.binary(max_size=3)) + body[cut + 1 :]
    prefix = draw(st.sampled_from(PREFIXES))
    queue = draw(st.sampled_from(QUEUES)) if draw(st.booleans()) else f"vcp.{prefix}.{kind.split('.')[0]}"
    return Delivery(queue, "vcp", f"{prefix}.{kind}", body)


def _encodable(payload: dict[str, Any]) -> dict[str, Any]:
    """What has no canonical form cannot be signed, so its field stays right."""
    try:
        canonical(payload)
    except NoCanonicalForm:
        return {}
    return payload
