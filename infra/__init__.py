"""Adapters to the world outside, and the composition root that wires them."""

import stamina

# Its own lines about retries print whole arguments, a partner's payload or a secret among them. Here, because every
# process that retries imports this room, also one that sets up no logs of ours: a benchmark, a short command.
stamina.instrumentation.set_on_retry_hooks([])
