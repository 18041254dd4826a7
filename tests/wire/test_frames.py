"""Frames: whatever is encoded comes back, in pieces of any size; what is no frame is refused in one sentence."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuprov.wire.frames import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    PREFIX,
    Decoder,
    FrameError,
    encode,
    encode_raw,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
HEADERS = st.builds(lambda rest, kind: {**rest, "t": kind}, st.dictionaries(st.text(), VALUES, max_size=5), st.text())
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=300)), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(FRAMES, st.lists(st.integers(min_value=0), max_size=40))
@settings(deadline=None, max_examples=50)
def test_what_is_encoded_comes_back_in_pieces_of_any_size(frames, cuts):
    decoder = Decoder()
    stream = b"".join(encode(header, body) for header, body in frames)
    found = [frame for piece in pieces(stream, cuts) for frame in decoder.feed(piece)]
    assert found == frames
    assert decoder.pending == 0


@given(FRAMES.filter(bool))
@settings(deadline=None, max_examples=50)
def test_byte_by_byte(frames):
    decoder = Decoder()
    stream = b"".join(encode(header, body) for header, body in frames)
    found = []
    for at in range(len(stream)):
        for header, body in decoder.feed(stream[at : at + 1]):
            assert json.loads(decoder.text) == header
            found.append((header, body))
    assert found == frames


@given(FRAMES.filter(bool), st.integers(min_value=1))
@settings(deadline=None, max_examples=50)
def test_a_stream_that_ends_in_the_middle_yields_only_what_is_whole(frames, missing):
    stream = b"".join(encode(header, body) for header, body in frames)
    kept = stream[: -(missing % len(stream) + 1)]
    found = list(Decoder().feed(kept))
    assert found == frames[: len(found)]
    assert len(found) < len(frames)


@given(st.binary(min_size=8, max_size=200))
@settings(deadline=None, max_examples=50)
def test_noise_is_refused_or_waited_for_and_nothing_else(noise):
    decoder = Decoder(max_header=1000, max_body=1000)
    with contextlib.suppress(FrameError):
        assert all(isinstance(header["t"], str) for header, _ in decoder.feed(noise))
    assert decoder.pending <= len(noise)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"t":1}', b"\xff", b"nonsense", b'{"t":"x"', b"null"])
def test_a_header_that_is_none(text):
    with pytest.raises(FrameError, match="header"):
        list(Decoder().feed(encode_raw(text)))


@pytest.mark.parametrize(
    ("head", "body"), [(MAX_HEADER_BYTES + 1, 0), (10, MAX_BODY_BYTES + 1), (0xFFFFFFFF, 0xFFFFFFFF)]
)
def test_a_frame_that_is_too_large_is_refused_before_it_is_held(head, body):
    decoder = Decoder()
    with pytest.raises(FrameError, match="the limits are"):
        list(decoder.feed(PREFIX.pack(head, body)))
    assert decoder.pending == PREFIX.size


def test_a_reader_sets_its_own_limits():
    frame = encode({"t": "x", "text": "y" * 100}, b"body")
    assert list(Decoder(200, 4).feed(frame))
    for limits in ((50, 4), (200, 3)):
        with pytest.raises(FrameError):
            list(Decoder(*limits).feed(frame))


def test_nobody_can_encode_what_nobody_would_take():
    with pytest.raises(FrameError, match="too large"):
        encode({"t": "x"}, bytes(MAX_BODY_BYTES + 1))


def test_frames_before_a_bad_one_are_not_lost():
    decoder = Decoder()
    frames = decoder.feed(encode({"t": "good"}) + PREFIX.pack(0xFFFFFFFF, 0))
    assert next(frames)[0]["t"] == "good"
    with pytest.raises(FrameError):
        next(frames)
