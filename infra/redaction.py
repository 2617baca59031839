"""Takes secrets out of text: those that this process has had in its hands, and whatever has the shape of one."""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import Lock
from typing import Any
from urllib.parse import quote, quote_plus

STRUCK = "***"
LEAST_LENGTH = 6
"""A shorter secret is no secret, and striking it out would leave no log to read."""
KEPT = 1000
"""Secrets remembered, the latest used: whatever is at work may fail, what is long done with does not."""

_NAME = (
    r"[\w-]*(?:secret|passw(?:or)?d|passphrase|pwd|token|api[_-]?key|signing[_-]?key|private[_-]?key|authorization|"
    r"credential|cookie)s?(?:[_-]?(?:keys?|value|id))?"
)
# The value in quotes to the end of them, else to the end of a word, behind a scheme such as Bearer.
_QUOTED = r"""(?:\\*"(?:[^"\\]|\\(?!").)*|\\*'(?:[^'\\]|\\(?!').)*)"""
_NAMED = re.compile(
    rf"""(?i)(\b{_NAME}\\*["']?\s*(?:=>|[:=,]\s*b?)\s*)({_QUOTED}|(?:(?:bearer|basic|digest|token)\s+)?[^\s"'&;,)}}\]]+)"""
)
_SHAPES: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), STRUCK),
    # The password of a URL, up to the last @ of its word: one that is not encoded may hold another.
    (re.compile(r"""([a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@"']*):[^\s"']+@"""), rf"\1:{STRUCK}@"),
    (re.compile(r"""(?<![\w/])([\w.%+-]+):[^\s"'/@]+@(?=[\w\[])"""), rf"\1:{STRUCK}@"),  # the same without its scheme
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {STRUCK}"),
    (re.compile(r"\b(wl_[0-9a-f]{32})_[\w-]+"), rf"\1_{STRUCK}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), STRUCK),
    (re.compile(r"\b([\w.-]+):[A-Za-z0-9+/]{43}="), rf"\1:{STRUCK}"),
    (re.compile(r"\b[0-9a-fA-F]{64}\b(?!@\d)"), STRUCK),  # but a seal's digest and number are there to be kept
)
_SECRET_FIELD = re.compile(rf"(?i){_NAME}")

_known: "OrderedDict[str, tuple[str, ...]]" = OrderedDict()
_lock = Lock()


def remember(secret: str) -> None:
    """From now on it is struck out of every text, also as a library would quote it."""
    with _lock:
        if secret in _known:
            _known.move_to_end(secret)
        elif len(secret) >= LEAST_LENGTH:
            _known[secret] = _spellings(secret)
            if len(_known) > KEPT:
                _known.popitem(last=False)


def redacted(text: str) -> str:
    with _lock:
        found = [spelling for spellings in _known.values() for spelling in spellings if spelling in text]
    for spelling in sorted(found, key=len, reverse=True):  # one may hold another
        text = text.replace(spelling, STRUCK)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return _NAMED.sub(rf"\1{STRUCK}", text)


def redacted_value(value: Any) -> Any:
    """The same for what a log line carries: text, containers of it, and objects by what they say of themselves."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redacted(value)
        case Mapping():
            return {redacted(str(key)): _field(str(key), each) for key, each in value.items()}
        case Sequence() | AbstractSet() if not isinstance(value, (bytes, bytearray, memoryview)):
            return [redacted_value(each) for each in value]
    return redacted(repr(value))


def _field(name: str, value: Any) -> Any:
    if _SECRET_FIELD.fullmatch(name) and isinstance(value, (str, bytes)):
        return STRUCK
    return redacted_value(value)


def _spellings(secret: str) -> tuple[str, ...]:
    """As it is, and as reprs, JSON and URLs write it."""
    quoted = repr(secret)[1:-1]
    return tuple(
        {
            secret,
            quoted,
            repr(quoted)[1:-1],
            ascii(secret)[1:-1],
            repr(secret.encode())[2:-1],
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(secret),
            quote(secret, safe=""),
            quote_plus(secret),
        }
    )
