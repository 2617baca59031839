"""Adapters to the world outside, and the composition root that wires them."""
