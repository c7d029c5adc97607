"""One tasks file, and the same results on every wire."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.contract.ends import Place
from tests.contract.suite import scripts_in
from tests.contract.wires import WIRES, RabbitMQ
from tests.e2e.scripts import task as record


@pytest.mark.timeout(240)
def test_a_thousand_mixed_tasks_end_alike_on_every_wire(tmp_path: Path, rabbitmq_url: str) -> None:
    records: list[dict[str, Any]] = []
    for number in range(1000):
        kind = number % 100
        if kind == 17:
            one = record("jobs.fail", f"number {number}")
        elif kind == 34 and number < 300:
            one = record("jobs.exit_", 3, retries=0)
        elif kind == 51 and number < 200:
            one = record("time.sleep", 60, timeout=0.2)
        elif kind == 68:
            one = record("jobs.echo", number, resources=3)
        elif kind == 85:
            one = record("jobs.no_such_function")
        elif kind % 10 == 2:
            one = record("jobs.ones", 30, 50)
        else:
            one = record("jobs.echo", [number, "text", 0.5], resources=1 + number % 2)
        records.append({**one, "id": str(number)})
    seen: dict[str, dict[str, tuple[Any, ...]]] = {}
    for wire in [*WIRES, RabbitMQ(rabbitmq_url)]:
        folder = tmp_path / wire.transport
        folder.mkdir()
        with scripts_in(folder) as scripts:
            own = folder / "wire.yml"
            own.write_text(json.dumps(Place(wire).dispatcher()))
            scripts.run(
                "--yaml", own, "--tasks", scripts.tasks(*records), "--workers", "2", "--cores", "2",
                "--output", "results.jsonl", "--quiet", status=1,
            )  # fmt: skip
            found = scripts.by_id()
            for result in found.values():
                if isinstance(result["value"], dict):  # a file's name holds the run's
                    result["value"] = (folder / result["value"]["$npy"]).read_bytes()
            error = {key: result["error"] and result["error"]["type"] for key, result in found.items()}
            seen[wire.transport] = {
                key: (result["status"], result["value"], error[key]) for key, result in found.items()
            }
    first, *others = seen.values()
    counts = Counter(status for status, _, _ in first.values())
    assert counts == {"ok": 965, "error": 10, "crashed": 3, "timeout": 2, "rejected": 20}
    for other in others:
        assert other == first
