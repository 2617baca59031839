"""Traces from HTTP or AMQP through the event log to the broker, with OpenTelemetry and without."""
