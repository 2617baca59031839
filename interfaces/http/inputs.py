"""What a request brings, read strictly: ids, query parameters and JSON bodies, each problem with its API name."""

import asyncio
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from domain.errors import Invalid, PayloadTooLarge, RequestTimeout

MAX_BODY = 5 * 1024 * 1024
BODY_S = 30.0
MAX_PARAMETERS = 50
# In any one object: ours have six at most, and each unknown one costs an error that is written out.
MAX_NAMES = 100
# What takes longer to read than a thread takes to ask.
LARGE = 64 * 1024
SHOWN_ERRORS = 50

M = TypeVar("M", bound=BaseModel)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json", re.IGNORECASE)


class NoQuery(BaseModel):
    """No query parameter is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_uuid(text: object) -> UUID | None:
    """Only the usual form with hyphens: one plant has one address."""
    return _uuid(text) if isinstance(text, str) and len(text) == 36 else None


@lru_cache(10_000)
def _uuid(text: str) -> UUID | None:
    return UUID(text) if _UUID.fullmatch(text) else None


def read_query(model: type[M], query: bytes, invalid: type[Invalid]) -> M:
    """Unknown parameters and repeated ones are refused: a misspelt filter must not answer everything."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise _broken(invalid, ["query: too many parameters"]) from None
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise _broken(invalid, [f"{name}: given more than once" for name in repeated])
    return _validated(model, dict(pairs), invalid)


async def content(request: Request) -> bytes:
    """The body, up to 5 MB whether its length was declared or not; raises PayloadTooLarge, or RequestTimeout when it
    takes longer than 30 s."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        raise PayloadTooLarge
    received = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                received += chunk
                if len(received) > MAX_BODY:
                    raise PayloadTooLarge
    except TimeoutError:
        raise RequestTimeout from None
    return bytes(received)


def read_body(model: type[M], body: bytes, content_type: str | None, invalid: type[Invalid]) -> M:
    """A JSON object; a missing content type is taken as JSON."""
    _require_json_type(content_type, invalid)
    parsed = _parsed(body, invalid)
    if not isinstance(parsed, dict):
        raise _broken(invalid, ["body: must be a JSON object"])
    return _validated(model, parsed, invalid)


def require_no_body(body: bytes, content_type: str | None, invalid: type[Invalid]) -> None:
    """Clients that always send `{}` are welcome; whoever sends more expects something that won't happen."""
    if not body.strip():
        return
    _require_json_type(content_type, invalid)
    if _parsed(body, invalid) != {}:
        raise _broken(invalid, ["body: must be empty"])


def _require_json_type(content_type: str | None, invalid: type[Invalid]) -> None:
    if content_type is not None and not _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise _broken(invalid, ["content-type: must be application/json"])


def _parsed(body: bytes, invalid: type[Invalid]) -> object:
    try:
        # orjson is the strict one (UTF-8, NaN, lone surrogates, depth), only json tells of duplicate keys.
        orjson.loads(body)
        return json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        problem = f"body: must be valid JSON without duplicate keys, of at most {MAX_NAMES} keys an object"
        raise _broken(invalid, [problem]) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs) or len(made) > MAX_NAMES:
        raise ValueError
    return made


def _validated(model: type[M], given: dict[str, Any], invalid: type[Invalid]) -> M:
    try:
        return model.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise _broken(invalid, [f"{_place(each['loc'])}: {_text(each['msg'])}" for each in problems]) from None
    except Invalid as error:
        # The domain's own rules, with the code that this route has for what it refuses.
        raise _broken(invalid, error.details.get("errors", [str(error)])) from None


def _broken(invalid: type[Invalid], errors: Sequence[str]) -> Invalid:
    return invalid("Validation error", errors=[error[:300] for error in errors[:SHOWN_ERRORS]])


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "body"


def _text(message: str) -> str:
    """Pydantic's sentence without its prefix for what our own validators say."""
    return message.removeprefix("Value error, ")
