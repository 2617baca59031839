"""Wattledger as an operator runs it: processes that start, end, share the work and are replaced by newer ones."""
