"""A worker that runs only what its YAML allows, with the real scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.scripts import Scripts, local, task


def settings(scripts: Scripts, transport: str, **keys: Any) -> str:
    path = scripts.folder / "wire.yml"
    path.write_text(json.dumps({"transport": transport, **keys}))
    return str(path)


@pytest.mark.parametrize("transport", ["zmq", "grpc", "rpyc", "rabbitmq"])
def test_what_is_not_allowed_is_rejected_and_the_rest_runs(
    transport: str, scripts: Scripts, rabbitmq_url: str
) -> None:
    allow = ["operator.*", "os.path.*"]
    more = {"url": rabbitmq_url} if transport == "rabbitmq" else {}
    yaml = settings(scripts, transport, allow=allow, **more)
    tasks = scripts.tasks(
        task("operator.add", 1, 2, id="add"), task("os.path.join", "a", "b", id="join"),
        task("os.system", f"touch {scripts.folder}/ran", id="system"), task("min", 1, 2, id="min"),
        task("os.path.os.system", f"touch {scripts.folder}/ran", id="alias"),
    )  # fmt: skip
    run = ["--yaml", yaml, "--tasks", tasks, "--output", "results.jsonl"]
    scripts.run(*run, *local(workers=2, cores=1), status=1)
    found = scripts.by_id()
    assert (found["add"]["value"], found["join"]["value"]) == (3, "a/b")
    for name, function in (("system", "os.system"), ("min", "min"), ("alias", "os.path.os.system")):
        result = found[name]
        assert (result["status"], result["error"]["type"], result["attempt"]) == ("rejected", "NotAllowed", 0)
        assert result["error"]["message"].startswith(f"{function} is not allowed on this worker: ")
        assert result["error"]["message"].endswith("its `allow` has operator.*, os.path.*")
    assert not (scripts.folder / "ran").exists()


def test_a_pattern_that_can_match_nothing_is_said_before_anything_runs(scripts: Scripts) -> None:
    worker = scripts.worker("--yaml", settings(scripts, "zmq", allow=["numpy.f*"]))
    assert worker.ends() == 2
    assert worker.stderr.startswith(f"worker.py: error: {scripts.folder}/wire.yml: allow: 'numpy.f*': write ")
    assert worker.stderr.count("\n") == 1
