"""Telemetry and meters on a real PostgreSQL: batches in, buckets out."""
