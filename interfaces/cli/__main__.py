"""`python -m interfaces.cli` is `wattledger`."""

from interfaces.cli import main

main()
