from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.errors import BadInput
from tracardi_lite.intake.compression import expanded

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 100_000


def bare_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    (" GZIP ", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("br", brotli.compress),
    ("zstd", zstd.compress),
]
packed = pytest.mark.parametrize(("encoding", "pack"), PACKERS)


@packed
@given(data=st.binary(max_size=3000), repeated=st.integers(1, 30))
def test_what_was_compressed_comes_out(
    encoding: str, pack: Callable[[bytes], bytes], data: bytes, repeated: int
) -> None:
    assert expanded(pack(data * repeated), encoding, MOST) == data * repeated


@packed
def test_a_stream_that_breaks_off_anywhere_is_400(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(bytes(range(256)) * 20)
    for end in range(1, len(whole)):
        with pytest.raises(BadInput) as refused:
            expanded(whole[:end], encoding, MOST)
        assert refused.value.status == 400


@packed
def test_the_bound_is_exact_and_a_bomb_is_not_expanded(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert len(expanded(pack(b" " * MOST), encoding, MOST)) == MOST
    for size in (MOST + 1, 200 * MOST):
        with pytest.raises(BadInput) as refused:
            expanded(pack(b" " * size), encoding, MOST)
        assert refused.value.status == 413


@packed
@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes_at_all_are_data_or_a_refusal(encoding: str, pack: Callable[[bytes], bytes], data: bytes) -> None:
    try:
        assert len(expanded(data, encoding, MOST)) <= MOST
    except BadInput as refused:
        assert refused.status in (400, 413)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_streams_one_after_another_are_one_body(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert expanded(pack(b"one ") + pack(b"two"), encoding, MOST) == b"one two"
    with pytest.raises(BadInput):
        expanded(pack(b"one ") + pack(b"two")[:-1], encoding, MOST)
    with pytest.raises(BadInput):
        expanded(pack(b"x" * MOST) + pack(b"y"), encoding, MOST)


@pytest.mark.parametrize("encoding", ["identity", "", "rot13", "gzip, gzip"])
def test_what_is_not_ours_to_undo_is_left_as_it_is(encoding: str) -> None:
    assert expanded(b"body", encoding, 2) == b"body"


def test_nothing_is_nothing() -> None:
    assert expanded(b"", "gzip", MOST) == b""
