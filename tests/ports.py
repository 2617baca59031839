"""Ports for servers that tests start in processes of their own."""

from infra.embedded.processes import free_ports


def free_port() -> int:
    """One that was free a moment ago, and that no outgoing connection is given before its server takes it."""
    return free_ports(1)[0]
