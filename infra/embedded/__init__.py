"""The servers Wattledger can bring along: a PostgreSQL from a wheel and a private node of an installed RabbitMQ."""

from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.processes import ServerFailed
from infra.embedded.rabbitmq import PrivateRabbitmq

__all__ = ["EmbeddedPostgres", "PrivateRabbitmq", "ServerFailed"]
