"""JSON as clients may send it: what a decoder can hand to the pipeline, junk and extremes included."""

from __future__ import annotations

from hypothesis import strategies as st

_COMMON = """id value email main country location latitude longitude time tz utm source screen local browser language
userAgent width height device touch orientation type interest consents revoke marketing pii firstname insert create"""

keys = st.one_of(
    st.text(max_size=12),
    st.sampled_from(_COMMON.split()),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.sampled_from(
        ["Europe/Warsaw", "2024-01-01", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "1e999", "-5"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=10,
)
objects = st.dictionaries(keys, values, max_size=8)
