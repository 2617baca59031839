"""Exports of telemetry and meters: a file of any range, one page of it in memory."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.errors import BadRequest
from interfaces.http.bodies import Minutes, RangeQuery
from interfaces.http.endpoint import Call
from interfaces.http.streamed import Streamed
from projections.exports import Export, Span, What
from projections.formats import MEDIA_TYPES, encoded
from projections.measurements import BadWindow


class ExportQuery(RangeQuery):
    """What to export, and as what; a naive time is UTC."""

    bucket: Minutes | None = Field(
        default=None, description="Aggregation bucket size in minutes; without it, what was measured as it came"
    )
    interval: Minutes | None = Field(default=None, description="Alias of `bucket`")
    format: Literal["csv", "parquet"] = Field(default="csv", description="Parquet if the server has pyarrow")

    def export(self, what: What, plant_id: UUID) -> Export:
        """Raises BadRequest, as the JSON endpoints do; at most 366 days."""
        self.require_one_name()
        try:
            span = Span.of(self.from_ or self.start, self.to or self.end)
            return Export(what, plant_id, span, self.bucket or self.interval)
        except BadWindow as error:
            raise BadRequest("Validation error", errors=[f"from: {error}"]) from None


async def export_telemetry(call: Call, plant_id: UUID, query: ExportQuery) -> Streamed:
    return await _exported(call, query.export("telemetry", plant_id), query)


async def export_meters(call: Call, plant_id: UUID, query: ExportQuery) -> Streamed:
    return await _exported(call, query.export("meters", plant_id), query)


async def _exported(call: Call, export: Export, query: ExportQuery) -> Streamed:
    pieces = encoded(export, query.format, call.gate.streams.ask_in_turn)
    # While an error can still be an answer.
    first = await anext(pieces)

    async def all_pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    span = f"{export.span.start:%Y%m%dT%H%M%SZ}-{export.span.end:%Y%m%dT%H%M%SZ}"
    name = f"{export.what}-{export.plant_id}-{span}.{query.format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Streamed(all_pieces(), MEDIA_TYPES[query.format], headers, call.services.streaming.patience_s)
