"""Migrations: each once, in order, by one process at a time; what was applied may not change."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from projections import schema


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0002_second.sql").write_text("INSERT INTO first VALUES ('100%'); SELECT pg_sleep(0.05);")
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (word text);")
    return tmp_path


def test_the_program_has_all_that_it_needs(connection: psycopg.Connection) -> None:
    assert schema.pending(connection) == []
    assert schema.migrate(connection) == []


def test_each_is_applied_once_in_order(empty_database_url: str, folder: Path) -> None:
    names = ["0001_first.sql", "0002_second.sql"]
    with psycopg.connect(empty_database_url) as connection:
        assert schema.pending(connection, folder) == names
        connection.rollback()
        assert schema.migrate(connection, folder) == names
        assert schema.migrate(connection, folder) == schema.pending(connection, folder) == []


def test_processes_that_start_together_share_the_work(empty_database_url: str, folder: Path) -> None:
    def start(_: int) -> list[str]:
        with psycopg.connect(empty_database_url) as connection:
            return schema.migrate(connection, folder)

    with ThreadPoolExecutor(4) as pool:
        applied = [name for names in pool.map(start, range(4)) for name in names]
    assert sorted(applied) == ["0001_first.sql", "0002_second.sql"]


def test_a_changed_file_is_an_error(empty_database_url: str, folder: Path) -> None:
    with psycopg.connect(empty_database_url) as connection:
        schema.migrate(connection, folder)
        (folder / "0001_first.sql").write_text("CREATE TABLE other (word text);")
        with pytest.raises(schema.SchemaError, match=r"0001_first\.sql differs"):
            schema.migrate(connection, folder)


def test_a_failed_one_leaves_nothing_and_may_be_mended(empty_database_url: str, folder: Path) -> None:
    broken = folder / "0003_third.sql"
    broken.write_text("CREATE TABLE third (); SELECT 1 / 0;")
    with psycopg.connect(empty_database_url) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            schema.migrate(connection, folder)
        assert schema.pending(connection, folder) == ["0003_third.sql"]
        connection.rollback()
        broken.write_text("CREATE TABLE third ();")
        assert schema.migrate(connection, folder) == ["0003_third.sql"]


def test_names_and_numbers_are_checked(folder: Path) -> None:
    (folder / "0001_again.sql").write_text("")
    with pytest.raises(schema.SchemaError, match="same number"):
        schema.read(folder)
    (folder / "0001_again.sql").rename(folder / "3_short.sql")
    with pytest.raises(schema.SchemaError, match="NNNN_name"):
        schema.read(folder)
