"""Pages, newest first, over rows that are numbered densely: the last page costs what the first does."""

from collections.abc import Sequence
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
    conditions = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in group
    )
    column = sql.Identifier(number)
    total = await _total(connection, sql.Identifier(table), column, conditions, group)
    highest = total - (query.page - 1) * query.limit
    statement = sql.SQL(
        "SELECT {columns} FROM {table} WHERE {conditions} AND {column} <= %(highest)s AND {column} > %(lowest)s"
        " ORDER BY {column} DESC"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, row.model_fields)),
        table=sql.Identifier(table),
        conditions=conditions,
        column=column,
    )
    found: Sequence[T] = []
    if highest > 0:
        async with connection.cursor(row_factory=class_row(row)) as cursor:
            await cursor.execute(statement, {**group, "highest": highest, "lowest": highest - query.limit})
            found = await cursor.fetchall()
    return page_of(found, query, total)


def page_of(rows: Sequence[T], query: PageQuery, total: int) -> Page[T]:
    meta = PageMeta(page=query.page, limit=query.limit, total=total, total_pages=-(-total // query.limit))
    return Page(data=list(rows), meta=meta)


async def _total(
    connection: "AsyncConnection[Any]",
    table: sql.Identifier,
    column: sql.Identifier,
    conditions: sql.Composed,
    group: dict[str, Any],
) -> int:
    statement = sql.SQL(
        "SELECT {column} FROM {table} WHERE {conditions} AND {column} IS NOT NULL ORDER BY {column} DESC LIMIT 1"
    ).format(column=column, table=table, conditions=conditions)
    row = await (await connection.execute(statement, group)).fetchone()
    return row[0] if row else 0
