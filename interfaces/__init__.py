"""How the world reaches Wattledger: HTTP, AMQP, the worker and the command line."""
