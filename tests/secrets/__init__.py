"""Secrets: sealed, rotated, forgotten, and never logged."""
