"""What only the kernel can do: bound the memory of a group, and kill for want of it.

Each pool here is one of a process in a cgroup made for it. That takes root, and a kernel with the memory
controller in the version in question.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.cgroup import lineage

ROOT = Path(__file__).parents[2]
CALLS = Path(__file__).with_name("calls.py")
MB = 10**6

Run = Callable[..., list[dict[str, Any]]]

#: Runs calls on a pool of one core, and prints what came of them.
PROGRAM = """
import json, os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from driving import Driver, item
from executor.cores import CoreSet
from executor.pool import Pool
cores = CoreSet(range(1), pinned=False)
driver = Driver(Pool(cores), cores)
calls = json.loads(sys.argv[2])
reports = driver.run(*(item(i, name, *args, memory=memory) for i, (name, args, memory) in enumerate(calls)))
driver.pool.close()
print(json.dumps([{"status": each.status, "error": each.error} for each in reports]))
"""


def make_group(version: int | None) -> Path:
    """Make a group below this process's own, of a version or of either; skip the test where that can't be."""
    for found, folder in lineage("memory"):
        if version not in (None, found) or not folder.is_dir():
            continue
        made = folder / f"function-executor-tests-{os.getpid()}"
        try:
            if found == 2:
                (folder / "cgroup.subtree_control").write_text("+memory")
            made.mkdir()
        except OSError:
            continue
        if (made / ("memory.max" if found == 2 else "memory.limit_in_bytes")).exists():
            return made
        made.rmdir()
    of = "" if version is None else f" of version {version}"
    pytest.skip(f"no cgroup{of} with a limit on memory can be made here")


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = make_group(getattr(request, "param", None))
    yield folder
    for each in (*folder.glob("*/"), folder):
        each.rmdir()


@pytest.fixture
def run(tmp_path: Path, group: Path) -> Run:
    """Run calls, each a function, its parameters, and its limit on memory, by a pool in the group."""
    shutil.copy(CALLS, tmp_path)

    def run(*calls: tuple[str, list[Any], int | None]) -> list[dict[str, Any]]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{CALLS.parent}"}
        command = [sys.executable, "-c", PROGRAM, str(group), json.dumps(calls)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, timeout=100)
        return list(json.loads(done.stdout))

    return run


def test_a_task_that_the_kernel_killed_for_want_of_memory(run: Run, group: Path) -> None:
    limit = group / "memory.max" if (group / "memory.max").exists() else group / "memory.limit_in_bytes"
    limit.write_text(str(300 * MB))
    killed, after = run(("calls.leak", [600 * MB], None), ("calls.pid", [], None))
    assert killed["status"] == "crashed"
    assert "signal 9 (SIGKILL), probably out of memory" in killed["error"][1]
    assert after["status"] == "ok", "the worker lives"


@pytest.mark.parametrize("group", [2], indirect=True)
def test_a_limit_where_a_group_is_delegated_is_the_kernels(run: Run, group: Path) -> None:
    os.setxattr(group, "trusted.delegate", b"1")
    within, beyond, family, after = run(
        ("calls.leak", [100 * MB], 500 * MB),
        ("calls.fill_a_file", [400 * MB], 300 * MB),
        ("calls.grow_elsewhere", [400 * MB], 300 * MB),
        ("calls.pid", [], 300 * MB),
    )
    assert within["status"] == after["status"] == "ok"
    assert beyond["status"] == family["status"] == "crashed"
    assert beyond["error"][:2] == ["MemoryLimit", "killed because it held 300 MB; its limit is 300 MB"]
    assert family["error"][0] == "MemoryLimit"
    assert not list(group.glob("child-*")), "nothing is left of them"
