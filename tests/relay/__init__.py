"""The relay and what it publishes, decided in memory: from a delivery to events, from events to messages."""
