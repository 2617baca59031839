"""`python -m tests.soak.skewed SEED COMMAND …`: a `wattledger` command whose clock is wrong, and jumps now and then."""

import random
import sys
import threading
import time

import time_machine

from interfaces.cli import main

WRONG_S = 45.0
"""At most: below the minute after which a request that is at work counts as abandoned. The doctor finds 2 s."""
LONGEST_S = 5.0


def run(seed: int) -> None:
    chance = random.Random(seed)
    begun, since = time.time(), time.monotonic()

    def wrong() -> float:
        return begun + time.monotonic() - since + chance.uniform(-WRONG_S, WRONG_S)

    with time_machine.travel(wrong(), tick=True) as clock:

        def jump() -> None:
            while True:
                threading.Event().wait(chance.uniform(0, LONGEST_S))
                clock.move_to(wrong())

        threading.Thread(target=jump, daemon=True).start()
        main()


if __name__ == "__main__":
    _, of_jumps, *words = sys.argv
    sys.argv = ["wattledger", *words]
    run(int(of_jumps))
