"""The tasks of a seed's run, and what is wrong with its results, if anything is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos import chores
from tests.e2e.scripts import task

#: Of a hundred tasks how many call which function.
FUNCTIONS = {"chore": 75, "array": 8, "bulk": 3, "speak": 10, "flaky": 4}


def records(seed: int, count: int) -> list[dict[str, Any]]:
    """Return the records of `count` tasks: some wide, some equal to another, most with an id of their own."""
    draw = random.Random(f"tasks of {seed}")
    found: list[dict[str, Any]] = []
    while len(found) < count:
        key = f"k{len(found)}"
        (function,) = draw.choices(list(FUNCTIONS), list(FUNCTIONS.values()))
        record = task(f"chores.{function}", key, draw.randrange(1, 51))
        if draw.random() < 0.15:
            record["resources"] = 2
        if draw.random() < 0.1:  # equal ones, told apart by how many there were before
            found += [dict(record) for _ in range(draw.randrange(2, 4))]
        elif draw.random() < 0.2:
            found.append(record)
        else:
            found.append({**record, "id": f"{key} of {seed}" if draw.random() < 0.3 else f"{seed}-{key}"})
    del found[count:]
    draw.shuffle(found)
    return found


def shuffled(records: Sequence[dict[str, Any]], draw: random.Random) -> list[dict[str, Any]]:
    """Return them in another order."""
    return draw.sample(records, len(records))


def mistakes(
    ids: Collection[str], results: Sequence[Mapping[str, Any]], notes: Sequence[str], folder: Path
) -> list[str]:
    """Return what is wrong with the results of tasks with these ids, given what the calls noted.

    The arrays are in `folder`.
    """
    wrong: list[str] = []
    counted = Counter(result["id"] for result in results)
    wrong += [f"{each}: {counted[each]} results" for each in ids if counted[each] != 1]
    wrong += [f"{each}: a result of no task" for each in counted.keys() - set(ids)]
    ended = {words[1]: words[2] for line in notes if (words := line.split())[0] == "end"}
    used: Counter[str] = Counter()
    for result in results:
        try:
            found = _mistakes(result, ended, folder)
            used[result["value"]["token"]] += 1
        except (KeyError, TypeError, ValueError, OSError) as error:
            found = [f"{type(error).__name__}: {error}"]
        wrong += [f"{result['id']}: {mistake}: {result}" for mistake in found]
    wrong += [f"{count} results of one execution, {token}" for token, count in used.items() if count > 1]
    return wrong


def _mistakes(result: Mapping[str, Any], ended: Mapping[str, str], folder: Path) -> list[str]:
    if result["status"] != "ok":
        return [f"status {result['status']}"]
    key, value, name = result["params"][0], result["value"], result["function"].removeprefix("chores.")
    said = chores.printed(key) if name == "speak" else ""
    looked_at = {
        "the value": (value["number"], chores.number(key)),
        "an execution that was": (ended.get(value["token"]), key),
        "what was printed": (result.get("stdout", ""), said),
        "all keys": ("table" in value, name in ("array", "bulk")),
        "an attempt": (result["attempt"] >= 1, True),
        "a worker": (bool(result["worker"] and result["host"] and result["cores"]), True),
        "its times": (result["started"] <= result["finished"], True),
    }
    found = [
        f"{what} is {is_!r}, not {should!r}" for what, (is_, should) in looked_at.items() if is_ != should
    ]
    if "table" in value:
        import numpy as np

        expected = chores.table(key, chores.BULK if name == "bulk" else 0)
        if not np.array_equal(np.load(folder / value["table"]["$npy"]), expected):
            found.append("the array is another")
    return found
