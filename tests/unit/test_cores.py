"""Which cores there are, and which of them a task gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.cores import CoreSet, Place, cgroup_quota, choose, granted, parse_cpu_list, share, spans


def machine(nodes: int, cores: int, threads: int = 2) -> CoreSet:
    """A machine as Linux numbers it: the second threads after all first ones; one package for each node."""
    total = nodes * cores
    places = {}
    for thread in range(threads):
        for core in range(total):
            places[thread * total + core] = Place(core // cores, core // cores, core)
    ids = sorted(places, key=lambda core: (*places[core], core))
    return CoreSet(ids, pinned=True, places=places)


def physical(cores: tuple[int, ...], total: int) -> set[int]:
    return {core % total for core in cores}


def test_siblings_go_to_one_task() -> None:
    cores = machine(1, 8)
    assert cores.take(2) == (0, 8)
    assert len(physical(cores.take(4), 8)) == 2


def test_narrow_tasks_fill_whole_physical_cores_first() -> None:
    cores = machine(1, 4)
    taken = [cores.take(1) for _ in range(4)]
    assert len({core % 4 for (core,) in taken}) == 4
    assert cores.take(1)[0] >= 4  # only halves are left


def test_a_wide_task_gets_one_node() -> None:
    cores = machine(2, 32)
    cores.take(6)
    wide = cores.take(64)
    assert {core % 64 // 32 for core in wide} == {1}


@given(st.lists(st.integers(1, 16), max_size=40), st.randoms(use_true_random=False), st.booleans())
def test_no_core_is_anybodys_twice(widths: list[int], chance: object, smt: bool) -> None:
    cores = machine(2, 8, 2 if smt else 1)
    every = set(cores.ids)
    held: list[tuple[int, ...]] = []
    for width in widths:
        while cores.free < width:
            cores.give(held.pop(chance.randrange(len(held))))  # type: ignore[attr-defined]
        taken = cores.take(width)
        assert len(set(taken)) == width
        assert set(taken) <= every
        assert not set(taken) & {core for other in held for core in other}
        assert list(taken) == sorted(taken, key=cores.ids.index)
        held.append(taken)
        assert cores.free == len(every) - sum(map(len, held))
    for each in held:
        cores.give(each)
    assert set(cores.take(len(every))) == every


@pytest.mark.parametrize("width", [0, 5])
def test_more_than_are_free_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match="cores of"):
        CoreSet(range(4), pinned=False).take(width)


@given(st.integers(0, 200), st.integers(1, 50))
def test_shares_divide_evenly(count: int, parts: int) -> None:
    shares = share(range(count), parts)
    assert [core for each in shares for core in each] == list(range(count))
    assert len(shares) == parts
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_slurm_may_only_lower_the_grant() -> None:
    have = granted({})
    assert granted({"SLURM_CPUS_PER_TASK": "1"}).ids == have.ids[:1]
    assert granted({"SLURM_CPUS_PER_TASK": "100000"}).ids == have.ids
    assert granted({"SLURM_CPUS_PER_TASK": "many"}).ids == have.ids


def test_more_cores_than_granted_are_slots() -> None:
    have = len(granted({}).ids)
    cores, remark = choose(have + 3, environ={})
    assert cores.ids == tuple(range(have + 3))
    assert not cores.pinned
    assert str(have + 3) in remark
    assert choose(None, pin=False, environ={})[0].pinned is False
    assert choose(1, environ={})[1] == "" or not choose(1, environ={})[0].pinned


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_quota_on_the_way_up_holds(tmp_path: Path) -> None:
    base = tmp_path / "sys/fs/cgroup"
    write(base / "user/job/cpu.max", "max 100000")
    write(base / "user/cpu.max", "250000 100000")
    assert cgroup_quota(tmp_path, "0::/user/job\n") == 2.5
    write(base / "user/job/cpu.max", "150000 100000")
    assert cgroup_quota(tmp_path, "0::/user/job\n") == 1.5


def test_the_quota_of_version_1(tmp_path: Path) -> None:
    base = tmp_path / "sys/fs/cgroup/cpu,cpuacct/docker/x"
    write(base / "cpu.cfs_quota_us", "300000")
    write(base / "cpu.cfs_period_us", "100000")
    assert cgroup_quota(tmp_path, "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n") == 3.0
    write(base / "cpu.cfs_quota_us", "-1")
    assert cgroup_quota(tmp_path, "4:cpu,cpuacct:/docker/x\n") is None


@pytest.mark.parametrize("groups", ["", "0::/\n", "0::/nowhere\n", "what is this"])
def test_no_quota(tmp_path: Path, groups: str) -> None:
    assert cgroup_quota(tmp_path, groups) is None
    write(tmp_path / "sys/fs/cgroup/cpu.max", "nonsense")
    assert cgroup_quota(tmp_path, groups) is None


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-3,8\n") == [0, 1, 2, 3, 8]
    with pytest.raises(ValueError, match="invalid"):
        parse_cpu_list("")


@given(st.sets(st.integers(0, 300), min_size=1))
def test_spans_are_cpu_lists(cores: set[int]) -> None:
    assert parse_cpu_list(spans(sorted(cores))) == sorted(cores)
