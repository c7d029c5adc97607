"""The cgroup that a process is in, and groups of their own for children; the kernel's files are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executor.cgroup import Group, delegated, kills, lineage

UNIFIED = "0::/user/job\n"
PID = str(os.getpid())


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_groups_up_to_the_top(tmp_path: Path) -> None:
    base = tmp_path / "sys/fs/cgroup"
    own = [(2, base / "user/job"), (2, base / "user"), (2, base)]
    assert list(lineage("memory", tmp_path, UNIFIED))[:3] == own
    mixed = "4:cpu,memory:/a\n3:pids:/b\n"
    assert list(lineage("memory", tmp_path, mixed))[:2] == [
        (1, base / "cpu,memory/a"),
        (1, base / "cpu,memory"),
    ]
    assert list(lineage("memory", tmp_path)) == []
    write(tmp_path / "proc/self/cgroup", UNIFIED)
    assert list(lineage("memory", tmp_path))[:3] == own


def test_the_nearest_count_of_kills_is_ours(tmp_path: Path) -> None:
    assert kills(tmp_path, UNIFIED) is None
    write(tmp_path / "proc/vmstat", "nr_free_pages 1\noom_kill 7\n")
    assert kills(tmp_path, UNIFIED) == 7
    write(tmp_path / "sys/fs/cgroup/user/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert kills(tmp_path, UNIFIED) == 2
    assert kills(tmp_path, "0::/user/function-executor\n") == 2, "tasks run beside it"
    write(
        tmp_path / "sys/fs/cgroup/memory/x/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
    )
    assert kills(tmp_path, "4:memory:/x\n0::/\n") == 5
    assert kills(tmp_path, "4:memory:/elsewhere\n") == 7, "a container without its own groups in sight"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A group that is delegated to this process alone."""
    folder = tmp_path / "sys/fs/cgroup/user/job"
    write(folder / "cgroup.controllers", "cpu memory pids\n")
    write(folder / "cgroup.subtree_control", "\n")
    write(folder / "cgroup.procs", f"{PID}\n")
    if os.geteuid() == 0:
        try:
            os.setxattr(folder, "user.delegate", b"1")
        except OSError:
            pytest.skip("this file system has no extended attributes")
    return folder


def test_a_group_that_is_delegated(tmp_path: Path, own: Path) -> None:
    assert delegated(tmp_path, UNIFIED) == own
    assert (own / "function-executor/cgroup.procs").read_text() == PID
    assert (own / "cgroup.subtree_control").read_text() == "+memory"
    (own / "cgroup.subtree_control").write_text("memory\n")  # as the kernel says it
    assert delegated(tmp_path, "0::/user/job/function-executor\n") == own, "it moved before"


def test_no_group_is_delegated(tmp_path: Path, own: Path) -> None:
    assert delegated(tmp_path, "4:memory:/user/job\n") is None, "version 1"
    assert delegated(tmp_path, "0::/elsewhere\n") is None
    assert delegated(tmp_path, "") is None
    write(own / "cgroup.procs", f"{PID}\n1\n")
    assert delegated(tmp_path, UNIFIED) is None, "others are in it"
    write(own / "cgroup.procs", f"{PID}\n")
    write(own / "cgroup.controllers", "cpu pids\n")
    assert delegated(tmp_path, UNIFIED) is None, "without memory"
    write(own / "cgroup.controllers", "memory\n")
    if os.geteuid() == 0:
        os.removexattr(own, "user.delegate")
    else:
        own.chmod(0o500)
    assert delegated(tmp_path, UNIFIED) is None, "not ours"
    own.chmod(0o700)
    assert not (own / "function-executor").exists()


def test_a_child_s_own_group(tmp_path: Path) -> None:
    group = Group(tmp_path, 12)
    folder = tmp_path / "child-12"
    group.enter()
    assert (folder / "cgroup.procs").read_text() == PID
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "memory.swap.max").read_text() == "0"
    group.bound(None)
    assert not (folder / "memory.max").exists(), "as it was"
    group.bound(1000)
    assert (folder / "memory.max").read_text() == "1000"
    group.bound(None)
    assert (folder / "memory.max").read_text() == "max"


@pytest.mark.parametrize(
    ("events", "exceeded"),
    [
        ("max 9\noom 1\noom_kill 3\n", True),
        ("max 0\noom 0\noom_kill 1\n", False),  # for want of memory elsewhere
        ("max 9\noom 0\noom_kill 0\n", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_whether_its_limit_killed_it(tmp_path: Path, events: str | None, exceeded: bool) -> None:
    if events is not None:
        write(tmp_path / "child-12/memory.events", events)
    assert Group(tmp_path, 12).exceeded() == exceeded
