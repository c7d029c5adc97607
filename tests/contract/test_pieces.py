"""Frames in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import BadFrame
from transports.pieces import PIECE_MOST, Joiner, Piece, split, together


@given(st.lists(st.lists(st.binary(max_size=20), max_size=8), max_size=3), st.integers(1, 12))
def test_frames_are_put_together_again(frames: list[list[bytes]], size: int) -> None:
    joiner = Joiner(10_000)
    for frame in frames:
        pieces = list(split(frame, size))
        assert all(sum(map(len, piece.parts)) <= size for piece in pieces)
        *none, whole = [joiner.add(piece) for piece in pieces]
        assert none == [None] * len(none)
        assert whole == frame


@given(st.lists(st.lists(st.binary(max_size=20), max_size=8), max_size=9), st.integers(1, 60))
def test_frames_that_wait_go_together(frames: list[list[bytes]], size: int) -> None:
    joiner = Joiner(10_000)
    groups = list(together(frames, size))
    sizes = [sum(len(part) for piece in group for part in piece.parts) for group in groups]
    firsts = [sum(map(len, group[0].parts)) for group in groups]
    assert all(groups)
    assert max(sizes, default=0) <= size
    assert all(sizes[i] + firsts[i + 1] > size for i in range(len(groups) - 1))
    whole = [joiner.add(piece) for group in groups for piece in group]
    assert [each for each in whole if each is not None] == frames


def test_many_small_parts_make_several_pieces() -> None:
    frame = [b"x"] * (2 * PIECE_MOST + 1)
    pieces = list(split(frame))
    assert [len(piece.parts) for piece in pieces] == [PIECE_MOST, PIECE_MOST, 1]
    joiner = Joiner(10**6)
    assert [joiner.add(piece) for piece in pieces] == [None, None, frame]


@given(st.lists(st.builds(Piece, st.lists(st.binary(max_size=9), max_size=4), st.booleans(), st.booleans())))
def test_any_pieces_make_frames_or_are_refused(pieces: list[Piece]) -> None:
    joiner = Joiner(50)
    try:
        for piece in pieces:
            frame = joiner.add(piece)
            assert frame is None or sum(map(len, frame)) <= 50
    except BadFrame:
        pass


def test_a_frame_without_end_is_refused() -> None:
    joiner = Joiner(1000)
    for _ in range(1000):
        joiner.add(Piece([b""], False, False))
    with pytest.raises(BadFrame, match="more than 1,000 bytes"):
        joiner.add(Piece([b""], False, False))
