"""Tests, told in events for the domain and on real servers for everything that talks to one."""
