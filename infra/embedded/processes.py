"""What the embedded servers need of the operating system: one owner a home, free ports, processes that end."""

import fcntl
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import psutil

OUR_PORTS = range(20_000, 32_768)


class ServerFailed(Exception):
    """An embedded server could not be brought up or down; the text says what to do."""


class HomeLock:
    """Lets one process at a time run a server in a home; the kernel releases it however that process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def acquire(self) -> None:
        """Raises ServerFailed if another process holds the home."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise ServerFailed(
                f"{error.filename} belongs to another user; run as that one or name another home"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise ServerFailed(
                f"{self._path.parent} is in use by another process; stop it or name another home"
            ) from None
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def free_ports(count: int) -> list[int]:
    """Different TCP ports of 127.0.0.1 that nobody listened on a moment ago.

    None of those from 32 768 on that Linux gives to connections that go out: one could take it before its server does.
    """
    return list(islice(filter(is_free, random.sample(OUR_PORTS, len(OUR_PORTS))), count))


def is_free(port: int) -> bool:
    try:
        # create_server sets SO_REUSEADDR, so connections that linger after a crash don't count.
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def become_free(ports: Iterable[int], seconds: float) -> bool:
    """Whether all of them are free in time: a killed server counts as dead a moment before its last thread lets go."""
    deadline = time.monotonic() + seconds
    taken = list(ports)
    while (taken := [port for port in taken if not is_free(port)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not taken


def wait_until(ready: Callable[[], bool], process: psutil.Process, log: Path, seconds: float) -> None:
    """Polls `ready`; raises ServerFailed with the log's end if the process ends first or the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not is_alive(process):
            raise ServerFailed(f"The server ended while starting. {end_of(log)}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"The server was not ready after {seconds:g} s. {end_of(log)}")
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    """False for a zombie too: an ended child of ours stays one until somebody waits for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(processes: Sequence[psutil.Process], *steps: tuple[signal.Signals, float]) -> None:
    """Sends each step's signal to those still alive and gives them its seconds; whoever is left is killed."""
    alive = list(processes)
    for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        alive = _left_of(alive, seconds)
        if not alive:
            return
    raise ServerFailed(f"Processes that SIGKILL does not end: {[process.pid for process in alive]}")


def _left_of(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    # psutil.wait_procs would wait for ever on an orphan's zombie, which a container without an init never loses.
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


def end_of(log: Path) -> str:
    if not log.exists():
        return "It wrote no log."
    return f"The end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
