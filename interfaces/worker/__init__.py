"""The worker: follower, consumers and scheduler in one process; any number of them may run side by side."""

from interfaces.worker.parts import Intervals, WorkerParts
from interfaces.worker.worker import Worker, WorkerStatus

__all__ = ["Intervals", "Worker", "WorkerParts", "WorkerStatus"]
