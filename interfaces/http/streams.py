"""Server-Sent Events: a plant's new samples as they are recorded.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from domain.errors import BadRequest, Forbidden, Unauthorized, Unavailable
from interfaces.http.answers import to_json
from interfaces.http.credentials import Right
from interfaces.http.endpoint import Call
from interfaces.http.queries import asked
from interfaces.http.streamed import Streamed
from projections.live import Place, Recorded, Watch, recorded
from projections.measurements import EPOCH

# When the client is to come again, in ms.
RETRY = b"retry: 2000\n\n"
RESET = b'event: reset\ndata: {"reason": "Last-Event-ID is too old"}\n'
PAGE_ROWS = 1000
HEADERS = {"X-Accel-Buffering": "no"}


async def stream_telemetry(call: Call, plant_id: UUID) -> Streamed:
    """Each event is a sample, its id the place to go on from; `reset` says that samples were missed."""
    wanted = call.headers.get("last-event-id", "")
    resume = Place.parse(wanted)
    if wanted and resume is None:
        raise BadRequest("Validation error", errors=["Last-Event-ID: must be the id of an event of this stream"])
    leave = call.gate.streams.enter(call.organization_id)
    patience_s = call.services.streaming.patience_s
    return Streamed(_events(call, plant_id, resume), "text/event-stream", HEADERS, patience_s, leave)


async def _events(call: Call, plant_id: UUID, resume: Place | None) -> AsyncGenerator[bytes, None]:
    streaming = call.services.streaming
    beat_s, checked = streaming.heart_beat_s, time.monotonic()
    seen = Place(0, EPOCH)
    yield RETRY
    with call.gate.streams.live.watch(plant_id, streaming.buffer) as watch:
        while not watch.lost:
            if watch.reached is not None and resume is not None:
                # First what the database has; meanwhile the watch keeps what is new.
                piece, resume, seen = await _caught_up(call, plant_id, resume, watch.reached)
            else:
                fresh = [sample for sample in watch.take() if sample.place > seen]
                seen = max(seen, watch.reached or seen)
                piece = _sent(fresh) or _heart_beat(seen if watch.reached else None)
            yield piece
            if time.monotonic() - checked >= beat_s:
                if not await _may_still(call):
                    return
                checked = time.monotonic()
            if resume is None or watch.reached is None:
                await _moved(watch, beat_s)


async def _caught_up(call: Call, plant_id: UUID, place: Place, now: Place) -> tuple[bytes, Place | None, Place]:
    """A page of what was recorded after the place, from where to go on or None, and what was seen then."""
    if not place.leads_to(now):
        return RESET + _heart_beat(now), None, now
    question = partial(recorded, plant_ids=[plant_id], after=place, limit=PAGE_ROWS)
    found, reached = await asked(call.services.queries, question)
    if len(found) == PAGE_ROWS:
        return _sent(found), found[-1].place, found[-1].place
    return _sent(found) or _heart_beat(reached), None, reached


async def _may_still(call: Call) -> bool:
    """Whether the credentials would let the caller in again. While nobody can tell, they would."""
    try:
        caller = await call.gate.credentials.caller(call.headers)
        caller.require(Right.READ)
    except (Unauthorized, Forbidden):
        return False
    except (Unavailable, psycopg.Error, PoolTimeout):
        return True
    return caller.organization_id == call.organization_id


async def _moved(watch: Watch, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await watch.moved.wait()
    except TimeoutError:
        pass


def _sent(samples: Iterable[Recorded]) -> bytes:
    return b"".join(b"id: %b\ndata: %b\n\n" % (str(place).encode(), to_json(row)) for place, row in samples)


def _heart_beat(seen: Place | None) -> bytes:
    """A comment, with the id that an idle client goes on from."""
    return b":\nid: %b\n\n" % str(seen).encode() if seen else b":\n\n"
