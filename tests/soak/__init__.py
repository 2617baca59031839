"""The whole of Wattledger under mixed load while its parts are killed, held and restarted: what was confirmed stays."""
