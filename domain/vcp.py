"""VCP 1.1: the envelope that partners and we exchange, its canonical form and its signature (amqp.md, Envelope)."""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid5

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictStr,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from domain.canonical import NoCanonicalForm, canonical

VERSION = "1.1"
SOURCE = "wattledger"
SIGNATURE_ALGO = "HMAC-SHA256"
MAX_BODY_BYTES = 64 * 1024


class Unreadable(Exception):
    """No JSON, or no envelope: `str()` says why, in words that repeat nothing of the message."""


def _looks_like_rfc3339(value: Any) -> Any:
    # pydantic alone would take numbers as Unix time.
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\dT", value, re.IGNORECASE):
        raise ValueError("must be RFC 3339")
    if not isinstance(value, (str, datetime)):
        raise ValueError("must be RFC 3339 text")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of the calendar") from None


Rfc3339 = Annotated[AwareDatetime, BeforeValidator(_looks_like_rfc3339), AfterValidator(_in_utc)]
"""A moment with its offset, as text; kept in UTC."""


class Envelope(BaseModel):
    """One message between a partner and us. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    version: StrictStr
    message_id: UUID
    correlation_id: StrictStr | None = Field(default=None, max_length=255)
    timestamp: Rfc3339
    source: StrictStr = Field(min_length=1, max_length=255)
    site_id: StrictStr = Field(min_length=1, max_length=255)
    payload: dict[str, JsonValue]
    signature_algo: StrictStr | None = None
    signature: StrictStr | None = None
    signature_kid: StrictStr | None = None


class Received(BaseModel):
    """A readable envelope beside the exact form that it is signed and compared in."""

    model_config = ConfigDict(frozen=True)

    envelope: Envelope
    signed_bytes: bytes
    digest: str


def read(body: bytes) -> Received:
    """Reads one message; raises Unreadable. A version other than ours is readable, so that it can be refused."""
    if len(body) > MAX_BODY_BYTES:
        raise Unreadable("larger than 64 KiB")
    document = read_json(body)
    try:
        envelope = Envelope.model_validate_json(body)
        signed_bytes = canonical({name: value for name, value in document.items() if name != "signature"})
        digest = hashlib.sha256(canonical(document)).hexdigest()
    except ValidationError as error:
        raise Unreadable(f"no envelope: {_first(error)}") from None
    except NoCanonicalForm:
        raise Unreadable("it has no canonical form") from None
    return Received(envelope=envelope, signed_bytes=signed_bytes, digest=digest)


def read_json(body: bytes) -> dict[str, Any]:
    """A JSON object that every store of ours can hold: UTF-8, finite numbers, no NUL; raises Unreadable."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    if not isinstance(document, dict):
        raise Unreadable("no JSON object")
    if b"\\u0000" in body and _has_nul(document):
        raise Unreadable("a string holds a NUL character")
    return document


def sign(signed_bytes: bytes, key_hex: str) -> str:
    """Base64url, without padding, of HMAC-SHA256 under a key of 64 hex digits."""
    return urlsafe_b64encode(_hmac(signed_bytes, key_hex)).rstrip(b"=").decode()


def signature_matches(received: Received, key_hex: str) -> bool:
    """Compared in constant time; padding is optional."""
    signature = received.envelope.signature or ""
    if received.envelope.signature_algo not in (None, SIGNATURE_ALGO):
        return False
    try:
        given = urlsafe_b64decode(signature.rstrip("=") + "=" * (-len(signature.rstrip("=")) % 4))
    except (Base64Error, ValueError):
        return False
    return hmac.compare_digest(given, _hmac(received.signed_bytes, key_hex))


def message_id(of: UUID, kind: str) -> UUID:
    """The deterministic id of a message that we send about something, so that a repeat can be recognised."""
    return uuid5(of, kind)


def emit(
    message_id: UUID, site_id: str, payload: dict[str, Any], timestamp: datetime, correlation_id: str | None = None
) -> dict[str, Any]:
    """An envelope from us, as a JSON object."""
    envelope = {
        "version": VERSION,
        "messageId": str(message_id),
        "timestamp": rfc3339(timestamp),
        "source": SOURCE,
        "siteId": site_id,
        "payload": payload,
    }
    return envelope if correlation_id is None else {**envelope, "correlationId": correlation_id}


def rfc3339(time: datetime) -> str:
    """UTC with `Z` and milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _hmac(signed_bytes: bytes, key_hex: str) -> bytes:
    return hmac.digest(bytes.fromhex(key_hex), signed_bytes, "sha256")


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    # Names of unknown fields are the sender's: only known ones are repeated.
    known = [str(part) for part in first["loc"] if str(part) in _FIELDS]
    return " ".join([".".join(known) or "a field", first["msg"]])


def _has_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(part) for pair in value.items() for part in pair)
        case list():
            return any(_has_nul(part) for part in value)
        case _:
            return False


_FIELDS = {to_camel(name) for name in Envelope.model_fields}
