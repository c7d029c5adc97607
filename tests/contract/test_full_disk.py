"""A full disk in mid-run, on every wire: no result is acknowledged unwritten, and none runs twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.contract.ends import Place
from tests.contract.suite import Contract
from tests.contract.wires import Wire
from tests.e2e.scripts import Scripts, task

pytestmark = pytest.mark.timeout(120)

#: Results of 20 kB each: more than there is room for.
COUNT = 40


def begun(scripts: Scripts) -> list[int]:
    """How often each task was begun."""
    return [
        path.read_text().count("begun") if (path := scripts.folder / f"page-{n}").exists() else 0
        for n in range(COUNT)
    ]


@pytest.mark.parametrize("mended", ["in time", "too late"])
def test_a_full_disk_costs_no_result_and_no_second_run(
    every_wire: Wire, scripts: Scripts, disk: Path, mended: str
) -> None:
    own, (each, *_) = Contract().yaml(scripts, Place(every_wire, heartbeat=0.3, patience=1.5))
    worker = scripts.worker("--yaml", each, "--cores", "2", "--no-pin")
    pages = scripts.tasks(*(task("jobs.page", f"page-{n}", 20_000, id=f"t{n}") for n in range(COUNT)))
    command = ["--yaml", own, "--tasks", pages, "--output", disk / "r.jsonl"]
    dispatcher = scripts.dispatcher(*command, *(["--wait", "4"] if mended == "too late" else []))
    dispatcher.says("No space left on device")
    if mended == "in time":
        (disk / "ballast").unlink()
        assert dispatcher.ends() == 0, dispatcher.log()
    else:
        assert dispatcher.ends() == 1, dispatcher.log()
        dispatcher.says("--resume")
        assert len(scripts.by_id("disk/r.jsonl")) < COUNT
        (disk / "ballast").unlink()
        scripts.run(*command, "--resume")
    found = scripts.by_id("disk/r.jsonl")
    assert len(found) == COUNT
    assert {(each["status"], each["attempt"], len(each["value"])) for each in found.values()} == {
        ("ok", 1, 20_000)
    }
    assert begun(scripts) == [1] * COUNT
    assert "gone" not in dispatcher.stderr, "it took the worker for dead"
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert "dropped" not in worker.stderr
