"""The text of documents is that of the standard library's indenting writer."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.io.documents import page_of

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(st.integers())
        | st.lists(st.booleans())
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers(), inner)
    ),
)


@given(st.dictionaries(st.text(), VALUES))
def test_the_standard_library_s_text(document):
    assert page_of(document) == json.dumps(document, indent=1) + "\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, -math.inf]])
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        page_of({"a": value})
