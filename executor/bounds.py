"""What may come in, at most: far beyond what honest use needs, far below what would harm. Pure.

Sizes are enforced where bytes arrive, by the links and by `executor.channel`; all else where they become a
message (`executor.messages`), so that who breaks a bound is told from who sends much. What decodes takes
memory in proportion to its bytes, so a bound on these bounds it all.
"""

from __future__ import annotations

#: Bytes of the largest call or result that any wire carries: above every array that makes sense in a message.
LARGEST = 4 << 30

#: Bytes of the largest frame that a wire need take: one of that size with others, and what is around them.
LARGEST_FRAME = LARGEST + (64 << 20)

#: Calls or reports in one frame; the ends send 256 calls, and what a worker finished in a moment.
MOST_ITEMS = 1 << 20

#: Parts of one frame: buffers are of 64 KB or more (`codec.OUT_OF_BAND`), so that few make a large one.
MOST_PARTS = 1 << 20

#: Places named in one message: all that a worker has, or a run's whole remainder. Runs have a million tasks.
MOST_PLACES = 1 << 24

#: Runs named in one message: those that a worker still has something of, or that a run continues.
MOST_RUNS = 10_000

#: Cores of a worker, and of a call that it is given: the largest machines have some thousands.
MOST_CORES = 1 << 20

#: Characters of a name: of a worker, a host, a run, an exception's type. Names of queues have 255 bytes.
LONGEST_NAME = 1000

#: Characters of a function's import path; people write a hundred.
LONGEST_PATH = 10_000

#: Characters of a text: an exception's message, a traceback, what a call printed (64 KB are kept).
LONGEST_TEXT = 1 << 20

#: Seconds between signs of life: who waits longer for one never learns of a death, and who gives them more
#: often does little else.
SHORTEST_SILENCE, LONGEST_SILENCE = 0.001, 86_400.0

#: Seconds that a call may be said to run: a century.
LONGEST_CALL = 100 * 366 * 86_400.0

#: Peers that an end knows at once, and of which it remembers that it complained.
MOST_PEERS = 100_000


def shortened(text: str, most: int = LONGEST_TEXT) -> str:
    """Return a text of at most `most` characters: its beginning and its end, which tell the most."""
    if len(text) <= most:
        return text
    mark = f"\n... {len(text) - most:,} characters and more left out ...\n"
    half = (most - len(mark)) // 2
    return text[:half] + mark + text[len(text) - half :]
