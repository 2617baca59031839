"""Pages, newest first, over rows that are numbered densely: the last page costs what the first does."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Generic, LiteralString, TypeVar

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

T = TypeVar("T", bound=BaseModel)


class ApiModel(BaseModel):
    """A response body: camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    page: int = Field(default=1, ge=1, le=2**31, description="Page number (1-indexed)")
    limit: int = Field(default=20, ge=1, le=100, description="Items per page")


class PageMeta(ApiModel):
    page: int
    limit: int
    total: int
    total_pages: int


class Page(ApiModel, Generic[T]):
    data: list[T]
    meta: PageMeta


async def fetch_page(
    connection: "AsyncConnection[Any]",
    row: type[T],
    table: LiteralString,
    query: PageQuery,
    *,
    number: LiteralString = "number",
    **group: Any,
) -> Page[T]:
    """The page of the rows whose columns equal `group`, which `number` numbers densely."""
    last, page = _statements(row, table, number, tuple(group))
    found = await (await connection.execute(last, group)).fetchone()
    total = found[0] if found else 0
    highest = total - (query.page - 1) * query.limit
    rows: Sequence[T] = []
    if highest > 0:
        async with connection.cursor(row_factory=class_row(row)) as cursor:
            await cursor.execute(page, {**group, "highest": highest, "lowest": highest - query.limit})
            rows = await cursor.fetchall()
    return page_of(rows, query, total)


def page_of(rows: Sequence[T], query: PageQuery, total: int) -> Page[T]:
    meta = PageMeta(page=query.page, limit=query.limit, total=total, total_pages=-(-total // query.limit))
    return Page(data=list(rows), meta=meta)


@cache
def _statements(
    row: type[BaseModel], table: LiteralString, number: LiteralString, group: tuple[LiteralString, ...]
) -> tuple[bytes, bytes]:
    """For the highest number, and for the rows below `highest` and above `lowest`."""
    names = {
        "columns": sql.SQL(", ").join(map(sql.Identifier, row.model_fields)),
        "table": sql.Identifier(table),
        "number": sql.Identifier(number),
        "group": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in group
        ),
    }
    last = "SELECT {number} FROM {table} WHERE {group} AND {number} IS NOT NULL ORDER BY {number} DESC LIMIT 1"
    page = (
        "SELECT {columns} FROM {table} WHERE {group} AND {number} <= %(highest)s AND {number} > %(lowest)s"
        " ORDER BY {number} DESC"
    )
    return sql.SQL(last).format(**names).as_bytes(), sql.SQL(page).format(**names).as_bytes()
