"""`wattledger up` as a newcomer runs it: a process of its own, stopped, killed and started again."""

import json
import os
import queue
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import pika
import pytest
from pika.exceptions import ProbableAuthenticationError

from infra.bootstrap import find
from infra.operator_keys import OperatorKey, WeakKey
from infra.settings import Settings
from interfaces.cli import up
from tests.access_log import access_log
from tests.servers import temporary_home

PATIENCE_S = 60
WITHOUT_RABBITMQ = """
from infra.embedded import PrivateRabbitmq
PrivateRabbitmq.installed = staticmethod(lambda: False)
from interfaces.cli import main
main()
"""


class Up:
    """One run of it; `home` and `port` are its own."""

    def __init__(self, home: Path, *, how: Sequence[str] = ("-m", "interfaces.cli")):
        # In a session of its own, so that a Ctrl-C here is one that it gets alone.
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, *how, "up"],
            env={**os.environ, "WATTLEDGER_HOME": str(home), "WATTLEDGER_HTTP_PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        self.wait_for("is ready")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self._reader.join(PATIENCE_S)
        access_log.read(self.home / "up.log")

    def wait_for(self, words: str) -> None:
        seen: list[str] = []
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                pytest.fail(f"`up` never said {words!r}, but: {seen}")
            if line == "":
                pytest.fail(f"`up` ended, having said: {seen}")
            seen.append(line)
            if words in line:
                return

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def demo(self) -> Any:
        return json.loads((self.home / "demo.json").read_text())

    def get(self, path: str) -> Any:
        key = self.demo["apiKeys"]["read"]
        answer = httpx.get(f"{self.demo['url']}/api/v1/trading{path}", headers={"X-API-Key": key}, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            for line in said:
                self.lines.put(line)
        self.lines.put("")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_home() as path:
        yield path


def test_it_goes_on_after_ctrl_c_and_after_a_kill(home: Path) -> None:
    with Up(home) as up:
        demo = up.demo
        assert stat.S_IMODE((home / "demo.json").stat().st_mode) == 0o600
        assert list(demo) == [
            "url",
            "organizationId",
            "organizationSlug",
            "apiKeys",
            "signingKey",
            "plants",
            "databaseUrl",
            "amqpUrl",
            "sandboxUrl",
        ]
        assert [plant["linked"] for plant in up.get("/plants")["data"]] == [True] * 3
        assert up.get("/config")["status"] == "ENABLED"
        assert partner_logs_in(demo)
        config = up.get("/config")
        slots = wattledger(home, "projections", "status", "--json")
        assert {slot["parkedAt"] for slot in json.loads(slots)} == {None}
        assert up.stop() == 0

    with Up(home) as up:
        assert up.demo["apiKeys"] == demo["apiKeys"]
        assert up.get("/config")["id"] == config["id"]
        up.kill()

    with Up(home) as up:
        assert up.get("/config")["createdAt"] == config["createdAt"]
        assert up.stop() == 0


def test_the_readme_s_calls_work_as_printed_without_rabbitmq(home: Path, tmp_path: Path) -> None:
    (tmp_path / ".wattledger").symlink_to(home / "without", target_is_directory=True)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    calls = next(block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "curl" in block)
    with Up(home / "without", how=("-c", WITHOUT_RABBITMQ)) as up:
        assert up.demo["amqpUrl"] is None
        run = subprocess.run(
            ["sh", "-ec", calls.replace("curl -s", "curl -s --fail-with-body -w '\\n'")],
            cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        config, plants, telemetry, changed, log = map(json.loads, run.stdout.splitlines())
    assert config["status"] == "ENABLED"
    assert plants["meta"]["total"] == 3
    assert {row["plant_id"] for row in telemetry} == {plants["data"][-1]["id"]}
    assert changed["isError"] is False
    assert log["data"][0]["id"] == changed["id"]


def partner_logs_in(demo: Any) -> bool:
    """Its slug and its key to connect with are an AMQP login, and no other key is."""
    address = demo["amqpUrl"].rpartition("@")[2]
    with pika.BlockingConnection(pika.URLParameters(f"amqp://demo:{demo['apiKeys']['connect']}@{address}")) as partner:
        partner.channel().queue_declare("vcp.demo.event.status", passive=True)
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(f"amqp://demo:{demo['apiKeys']['admin']}@{address}"))
    return True


def wattledger(home: Path, *words: str) -> str:
    """A command beside the running `up`, which it finds by its home."""
    run = subprocess.run(
        [sys.executable, "-m", "interfaces.cli", *words],
        env={**os.environ, "WATTLEDGER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_beside_a_database_of_ones_own_the_keys_are_those_of_the_setting(database_url: str, tmp_path: Path) -> None:
    key = OperatorKey.random()
    settings = Settings(home=tmp_path, database_url=database_url, amqp_url="amqp://broker", secret_keys=str(key))
    with ExitStack() as stack:
        assert up._servers(stack, settings)[0].secret_keys == find(settings).secret_keys == [key]
        with pytest.raises(WeakKey):
            up._servers(stack, settings.model_copy(update={"secret_keys": "weak:c2hvcnQ="}))
