from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.exchange.body import Body, BodyDamaged, BodyTooLarge

TEXT = b'[{"asset":"BTC","free":"0.1"}]' * 20


def bare(content: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(content) + deflater.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


def read(encoding: str, sent: bytes, *, limit_bytes: int = 1_000, chunk_bytes: int = 7) -> bytes:
    body = Body(encoding, limit_bytes=limit_bytes)
    for start in range(0, len(sent), chunk_bytes):
        body.feed(sent[start : start + chunk_bytes])
    return body.finish()


@pytest.mark.parametrize("encoding", ENCODERS)
@given(st.binary(max_size=900), st.lists(st.integers(0, 1_000), max_size=8))
def test_what_was_sent_is_read_however_it_is_cut(encoding: str, content: bytes, cuts: list[int]) -> None:
    sent = ENCODERS[encoding](content)
    body = Body(encoding, limit_bytes=1_000)
    for start, end in pairwise(sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})):
        body.feed(sent[start:end])
    assert body.finish() == content


@given(st.binary(max_size=900))
def test_deflate_without_its_container_is_read_as_well(content: bytes) -> None:
    # Stored blocks may begin like the container; what is really compressed does not.
    assert read("deflate", bare(TEXT + content[:100])) == TEXT + content[:100]


def test_the_name_of_the_encoding_may_be_written_in_capitals() -> None:
    assert read(" GZIP ", gzip.compress(TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate, gzip", "compress", "gzip;q=1"])
def test_what_was_not_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises(BodyDamaged, match="not asked for"):
        Body(encoding, limit_bytes=1_000)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_a_body_as_large_as_the_bound_is_read_and_one_byte_more_is_not(encoding: str) -> None:
    assert len(read(encoding, ENCODERS[encoding](b"0" * 1_000))) == 1_000
    with pytest.raises(BodyTooLarge):
        read(encoding, ENCODERS[encoding](b"0" * 1_001))


def test_a_bomb_is_not_unpacked_beyond_the_bound() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    limit_bytes = 1_000_000
    body = Body("gzip", limit_bytes=limit_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            body.feed(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5 * limit_bytes


def test_compressed_data_that_comes_to_nothing_is_bounded_too() -> None:
    endless = b"\0\0\0\xff\xff" * 1_000  # stored blocks of no bytes
    body = Body("deflate", limit_bytes=1_000)
    with pytest.raises(BodyTooLarge):
        body.feed(endless)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_no_part_of_compressed_data_is_taken_for_the_whole(encoding: str) -> None:
    sent = ENCODERS[encoding](TEXT)
    for length in range(1, len(sent)):
        with pytest.raises(BodyDamaged):
            read(encoding, sent[:length])


@pytest.mark.parametrize(
    "behind", [b"x", gzip.compress(b""), gzip.compress(TEXT)], ids=["rubbish", "empty member", "member"]
)
@pytest.mark.parametrize("chunk_bytes", [7, 10_000])
def test_data_behind_the_end_is_refused(behind: bytes, chunk_bytes: int) -> None:
    with pytest.raises(BodyDamaged, match="behind the end"):
        read("gzip", gzip.compress(TEXT) + behind, chunk_bytes=chunk_bytes)


def test_a_flipped_bit_is_found() -> None:
    sent = bytearray(gzip.compress(TEXT))
    sent[-6] ^= 1  # in the checksum
    with pytest.raises(BodyDamaged):
        read("gzip", bytes(sent))


def test_nothing_sent_is_an_empty_body_whatever_its_encoding() -> None:
    assert read("gzip", b"") == b""
    assert read("", b"") == b""
