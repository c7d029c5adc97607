"""A task that kills its workers, among others that sleep beside it: it alone is lost, on every wire."""

from __future__ import annotations

import msgspec
import pytest

from tests.contract.ends import Place
from tests.contract.wires import Wire
from tests.e2e.scripts import Scripts, task


@pytest.mark.timeout(120)
def test_only_what_kills_its_workers_is_lost(every_wire: Wire, scripts: Scripts) -> None:
    scripts.folder.joinpath("wire.yml").write_bytes(msgspec.yaml.encode(Place(every_wire).dispatcher()))
    records = [
        *(task("jobs.stand_by", f"{n}", 0.3, id=f"before {n}") for n in range(2)),
        task("jobs.kill_worker", 2, id="assassin"),
        *(task("time.sleep", 0.3, id=f"after {n}") for n in range(6)),
    ]
    scripts.run(
        "--yaml", "wire.yml", "--tasks", scripts.tasks(*records), "--order", "file", "--workers", "2",
        "--cores", "3", "--output", "results.jsonl", status=1,
    )  # fmt: skip
    results = scripts.by_id()
    assert len(results) == len(records)
    assassin = results.pop("assassin")
    assert (assassin["status"], assassin["attempt"]) == ("lost", 3)
    assert {result["status"] for result in results.values()} == {"ok"}
    assert max(result["attempt"] for result in results.values()) > 1, "nobody was beside it"
