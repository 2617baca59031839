"""How the world reaches us over AMQP: one file a story, each a `Handle` for the broker's consumers (amqp.md)."""

from interfaces.amqp.commands import Commands
from interfaces.amqp.measurements import Measurements
from interfaces.amqp.plant_acks import PlantAcks

__all__ = ["Commands", "Measurements", "PlantAcks"]
