"""The worker as it runs: real PostgreSQL, both brokers, partners and plants on the other side."""
