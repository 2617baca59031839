"""What Wattledger knows: aggregates, value objects and pure functions, free of any framework but eventsourcing."""
