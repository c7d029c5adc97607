"""Numbers in words."""

from __future__ import annotations

import pytest

from executor.words import round_duration, size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (999_499, "999 kB"),
        (999_500, "1 MB"), (512 * 10**6, "512 MB"), (2_147_483_648, "2.15 GB"), (5 * 10**15, "5,000 TB"),
    ],
)  # fmt: skip
def test_a_size_is_read_at_a_glance(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(3600, "1 h"), (5400, "90 min"), (7200, "2 h"), (90, "90 s"), (0.5, "0.5 s")]
)
def test_a_chosen_duration_is_said_as_it_was_chosen(seconds: float, words: str) -> None:
    assert round_duration(seconds) == words
