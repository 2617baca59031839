"""The REST contract over HTTP: a table of endpoints, and what stands before and behind it."""
