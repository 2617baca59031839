"""The canonical JSON of RFC 8785: what signatures and digests are over."""

from typing import Any

import orjson
import rfc8785

_FIRST_SURROGATE = "\ud800"
_EXACT = 2**53


class NoCanonicalForm(ValueError):
    """A number that is not finite or not exact, text that is no Unicode, or nesting without end."""


def canonical(document: Any) -> bytes:
    """Raises NoCanonicalForm.

    The library says what is right, in Python. Where a faster encoder says the same for sure, it has the word: names
    that sort alike by UTF-8 and by UTF-16, and numbers that JavaScript and it write alike.
    """
    try:
        return orjson.dumps(_plain(document), option=orjson.OPT_SORT_KEYS)
    except _Unsure:
        pass
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise NoCanonicalForm from error
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise NoCanonicalForm from error


class _Unsure(Exception):
    pass


def _plain(value: Any) -> Any:
    """The same with whole floats as integers; raises _Unsure of what the two encoders might write differently."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is float:
        magnitude = abs(value)
        if value.is_integer() and magnitude < _EXACT:
            return int(value)
        if 1e-4 <= magnitude < 1e15:
            return value
    elif kind is int:
        if -_EXACT < value < _EXACT:
            return value
    elif kind is dict:
        if all(type(name) is str and (name.isascii() or max(name) < _FIRST_SURROGATE) for name in value):
            return {name: part if type(part) is str else _plain(part) for name, part in value.items()}
    elif kind is list:
        return [_plain(part) for part in value]
    raise _Unsure
