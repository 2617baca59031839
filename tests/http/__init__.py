"""The REST contract over real HTTP, PostgreSQL and read models."""
