"""The canonical form is the library's, however it is come by."""

from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.canonical import NoCanonicalForm, canonical

NUMBERS = st.floats() | st.integers() | st.floats(-1000, 1000) | st.decimals(-100, 100, places=3).map(float)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
    max_leaves=12,
)


def by_the_library(document: Any) -> bytes | None:
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError):
        return None


@settings(max_examples=500)
@given(JSON)
@example({"\U0001f600": 1, "\uffff": 2, "é": 3, "e": 4})
@example({"\ue000": 1, "\ud7ff": 2})
@example([-0.0, 0.0, 1e-4, 9.9e-5, 1e-7, 1e15, 1e16, 123456789012345.6, 1e21, 1e20, 5e-324, 2**53, 2**53 - 1, -(2**53)])
@example('\x00\x01\b\t\n\f\r\x1f"\\/\x7f\u2028\u2029é😀')
@example("\ud800")
@example({"\ud800": 1})
def test_it_is_what_the_library_says(document: Any) -> None:
    expected = by_the_library(document)
    if expected is None:
        with pytest.raises(NoCanonicalForm):
            canonical(document)
    else:
        assert canonical(document) == expected


@pytest.mark.parametrize("number", [0.1 + 0.2, 1 / 3, 100.0, 0.0001, 12345.678, 1e14 + 0.5, 4503599627370497.5])
def test_numbers_that_are_common(number: float) -> None:
    assert canonical([number, -number]) == rfc8785.dumps([number, -number])


def test_nesting_without_end() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NoCanonicalForm):
        canonical(deep)
