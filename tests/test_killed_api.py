"""The API killed -9 under load, again and again: what is asked under one Idempotency-Key is recorded once."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self
from uuid import uuid4

import httpx
import psycopg
import pytest

from application.context import Metadata, acting
from application.organisations import Organisations
from infra.event_mapper import EventMapper
from infra.event_store import event_log
from infra.postgres import connect, pool
from infra.secret_box import HmacKeyHasher, OperatorKey, PostgresSecretBox
from projections.follower import Follower
from projections.read_models import READ_MODELS
from projections.rebuild import rebuild
from tests.access_log import access_log
from tests.ports import free_port

PATIENCE_S = 120  # a minute is how long a request counts as at work whose process was killed
CLIENTS = 4


class Api:
    """A `wattledger serve` of its own, on one port over all its lives."""

    def __init__(self, database_url: str, key: OperatorKey, log: Path) -> None:
        self.port, self._log = free_port(), log
        self._environment = {
            **os.environ,
            "WATTLEDGER_DATABASE_URL": database_url,
            "WATTLEDGER_SECRET_KEYS": str(key),
            "WATTLEDGER_HTTP_PORT": str(self.port),
            "WATTLEDGER_WRITES_PER_MINUTE": "1000000",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "interfaces.cli", "serve"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Load:
    """Clients that change the config, each change under a key of its own and repeated until it is answered 200."""

    def __init__(self, url: str, api_key: str) -> None:
        self.confirmed: list[str] = []
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._url, self._api_key = url, api_key
        self._threads = [threading.Thread(target=self._change) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def wait_for_more(self, count: int) -> None:
        """Until so many more changes are confirmed."""
        wanted, end = len(self.confirmed) + count, time.monotonic() + PATIENCE_S
        while len(self.confirmed) < wanted:
            assert time.monotonic() < end, f"no more than {len(self.confirmed)} changes are confirmed"
            time.sleep(0.005)

    def _change(self) -> None:
        with httpx.Client(base_url=self._url, headers={"X-API-Key": self._api_key}, trust_env=False) as client:
            while not self._stop.is_set():
                self._until_confirmed(client, str(uuid4()))

    def _until_confirmed(self, client: httpx.Client, name: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                answer = client.post(
                    "/api/v1/trading/config", json={"esmClientId": name}, headers={"Idempotency-Key": name}
                )
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if answer.status_code == 200:
                if answer.json()["esmClientId"] != name:
                    self.wrong.append(answer.text)
                self.confirmed.append(name)
                return
            if answer.status_code not in {409, 503}:
                self.wrong.append(answer.text)
                return
            time.sleep(0.02)
        self.wrong.append(f"{name} was never confirmed")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.bench)])
def test_an_api_that_is_killed_loses_and_doubles_nothing(database_url: str, kills: int, tmp_path: Path) -> None:
    key = OperatorKey.random()
    # A request whose process was killed counts as handled for a while: here that while is over at once.
    api_key = _organisation(database_url, key)
    log = tmp_path / "api.log"
    api = Api(database_url, key, log)
    with _following(database_url), Load(f"http://127.0.0.1:{api.port}", api_key) as load:
        for _ in range(kills):
            api.start()
            load.wait_for_more(25)
            api.kill()
            _age_open_requests(database_url)
        api.start()
        load.wait_for_more(25)
    api.kill()
    seen = access_log.answers
    access_log.read(log)
    assert access_log.answers > seen
    assert load.wrong == []
    with psycopg.connect(database_url) as connection:
        states = connection.execute(
            "SELECT convert_from(state, 'utf8')::json->>'esm_client_id' FROM events"
            " WHERE topic = 'trading-config:partner-changed'"
        ).fetchall()
        [(organization_id,)] = connection.execute("SELECT organization_id FROM trading_configs").fetchall()
    with pool(database_url, 2, "test") as connections:
        unveil = PostgresSecretBox(connections, [key]).unveil(organization_id)
    recorded = Counter(unveil(name) for (name,) in states)
    assert {name: recorded[name] for name in load.confirmed if recorded[name] != 1} == {}
    rebuilt = rebuild(partial(connect, database_url, "rebuild"), EventMapper().decoder, READ_MODELS)
    assert {each.name: each.difference for each in rebuilt if each.difference} == {}


def _organisation(database_url: str, key: OperatorKey) -> str:
    with pool(database_url, 2, "test") as connections, acting(Metadata(actor="cli", source="cli")):
        secrets = PostgresSecretBox(connections, [key])
        organisations = Organisations(event_log(connections), secrets, HmacKeyHasher(secrets))
        organisation = organisations.create("acme")
        return organisations.mint_key(organisation.id, "admin", ["trading:admin"]).api_key


@contextmanager
def _following(database_url: str) -> Iterator[None]:
    stop = threading.Event()
    follower = Follower("projector", READ_MODELS, partial(connect, database_url, "projector"), EventMapper().decoder)
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def _age_open_requests(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE idempotency_keys SET created_at = created_at - interval '2 min' WHERE answer IS NULL"
        )
