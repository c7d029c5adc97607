"""Which cores there are, and which of them a task gets."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import cores as cores_module
from executor.cores import CoreSet, Place, cgroup_quota, choose, granted, named, parse_cpu_list, share, spans


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


def test_a_task_of_odd_width_leaves_the_rest_of_its_last_physical_core() -> None:
    cores = machine(1, 4)
    assert cores.take(3) == (0, 4, 1)
    assert cores.take(1) == (2,)
    assert cores.take(1) == (3,)
    assert cores.take(3) == (5, 6, 7)


@given(st.lists(st.integers(1, 24), max_size=60), st.randoms(use_true_random=False))
def test_no_physical_core_is_shared_while_there_are_whole_ones(widths: list[int], chance: Random) -> None:
    cores = machine(2, 16)
    held: list[tuple[int, ...]] = []
    for width in widths:
        while cores.free < width:
            cores.give(held.pop(chance.randrange(len(held))))
        used = physical(tuple(core for other in held for core in other), 32)
        taken = cores.take(width)
        touched = physical(taken, 32)
        if 2 * (32 - len(used)) >= width:
            assert not touched & used
            assert len(touched) == -(-width // 2), "both threads of each, but for an odd one"
            nodes = [32 // 2 - len({core for core in used if core // 16 == node}) for node in (0, 1)]
            if max(nodes) * 2 >= width:
                assert len({core // 16 for core in touched}) == 1
        held.append(taken)


def test_narrow_tasks_leave_room_for_wide_ones() -> None:
    cores = machine(2, 32)
    narrow = [cores.take(1) for _ in range(32)]
    assert {core % 64 // 32 for (core,) in narrow} == {0}
    assert {core % 64 // 32 for core in cores.take(64)} == {1}
    cores.give(narrow[5])
    cores.give(narrow[7] + narrow[8])
    assert cores.take(1) == narrow[5]  # the smallest gap that will do


def test_a_task_wider_than_a_node_gets_one_package() -> None:
    places = {core: Place(core // 4, core // 8, core) for core in range(16)}  # two nodes in each package
    cores = CoreSet(range(16), pinned=True, places=places)
    assert cores.take(1) == (0,)
    assert cores.take(8) == (8, 9, 10, 11, 12, 13, 14, 15)
    cores.give([9])
    assert cores.take(6) == (1, 2, 3, 4, 5, 6)
    assert cores.take(2) == (7, 9)  # wherever there are some, at last


def test_the_smallest_room_that_will_do_is_taken() -> None:
    cores = machine(2, 8, threads=1)
    cores.take(16)
    cores.give(range(8))
    cores.give(range(10, 14))
    assert cores.take(2) == (10, 11)
    assert cores.take(8) == tuple(range(8)), "a whole node, which was left for it"


def test_wide_tasks_get_cores_beside_one_another() -> None:
    cores = machine(1, 8, threads=1)
    cores.take(8)
    cores.give([1, 4, 5, 6])
    assert cores.take(2) == (4, 5)
    assert cores.take(2) == (1, 6)  # or what there is


def test_half_of_a_physical_core_is_whole_to_one_that_has_no_more_of_it() -> None:
    places = {core: Place(0, 0, core % 4) for core in (0, 4, 1, 2)}
    cores = CoreSet([0, 4, 1, 2], pinned=True, places=places)
    assert [cores.take(1) for _ in range(4)] == [(0,), (1,), (2,), (4,)]


def test_cores_that_are_given_twice_are_there_once() -> None:
    cores = machine(1, 2)
    taken = cores.take(3)
    cores.give(taken)
    cores.give(taken)
    assert cores.free == 4
    assert sorted(cores.take(4)) == [0, 1, 2, 3]


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


def sysfs(root: Path, sockets: int, cores: int, nodes: int = 1) -> Path:
    """Write the topology of a machine with two threads for each core as the kernel does.

    `cores` are those of a socket, and `nodes` its NUMA nodes.
    """
    total = sockets * cores
    for core in range(2 * total):
        first = core % total
        folder = root / f"cpu{core}"
        (folder / f"node{first * nodes // cores}").mkdir(parents=True)
        write(folder / "topology/physical_package_id", f"{first // cores}\n")
        write(folder / "topology/thread_siblings_list", f"{first},{first + total}\n")
    return root


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 logical CPUs, and nobody who grants fewer."""
    monkeypatch.setattr(cores_module, "cgroup_quota", lambda: None)
    monkeypatch.setattr(cores_module.os, "cpu_count", lambda: 128)
    monkeypatch.setattr(cores_module.os, "sched_getaffinity", lambda pid: set(range(128)), raising=False)
    monkeypatch.setattr(cores_module.sys, "platform", "linux")


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlimited: None) -> None:
    """Two sockets of 32 cores of two threads, without limits."""
    monkeypatch.setattr(cores_module, "_CPUS", sysfs(tmp_path / "cpu", 2, 32))


@pytest.mark.usefixtures("unlimited")
def test_wide_tasks_on_a_machine_of_several_nodes_in_each_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores_module, "_CPUS", sysfs(tmp_path / "cpu", 2, 32, nodes=2))
    cores, _ = choose(None, environ={})

    def parts(taken: tuple[int, ...], size: int) -> set[int]:
        """In which groups of so many physical cores they lie."""
        return {core % 64 // size for core in taken}

    node, socket = 16, 32
    assert cores.take(1) == (0,)
    assert parts(cores.take(64), socket) == {1}, "wider than a node: one socket"
    one_node = cores.take(32)
    assert parts(one_node, node) == {1}
    assert {core % 64 for core in one_node} == set(range(16, 32)), "16 physical cores, both threads of each"
    assert parts(cores.take(30), node) == {0}
    assert cores.take(1) == (64,), "its sibling is in use: the last that is taken"


@pytest.mark.usefixtures("big")
def test_neighbours_stand_together_in_the_grant() -> None:
    ids, by = granted({})
    assert by == "the machine"
    assert ids[:4] == (0, 64, 1, 65)
    assert {core % 64 // 32 for core in ids[:64]} == {0}
    assert sorted(ids) == list(range(128))


@pytest.mark.usefixtures("big")
def test_the_mask_says_which_and_the_rest_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores_module.os, "sched_getaffinity", lambda pid: {3, 40, 67, 104, 7})
    assert granted({}) == ((3, 67, 7, 40, 104), "the affinity mask")
    assert granted({"SLURM_CPUS_PER_TASK": "2"}) == ((3, 67), "SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(cores_module, "cgroup_quota", lambda: 2.5)
    assert granted({"SLURM_CPUS_PER_TASK": "4"}) == ((3, 67, 7), "the cgroup's CPU quota")
    assert granted({"SLURM_CPUS_PER_TASK": "1"}) == ((3,), "SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(cores_module, "cgroup_quota", lambda: 0.2)
    assert granted({}) == ((3,), "the cgroup's CPU quota")
    monkeypatch.setattr(cores_module, "cgroup_quota", lambda: 64.0)
    assert len(granted({}).ids) == 5


@pytest.mark.usefixtures("big")
@pytest.mark.parametrize("text", ["", "0", "-4", "8(x2)", "4.0"])
def test_what_slurm_does_not_say_limits_nothing(text: str) -> None:
    assert len(granted({"SLURM_CPUS_PER_TASK": text}).ids) == 128


@pytest.mark.usefixtures("big")
def test_a_worker_on_a_big_machine() -> None:
    cores, remark = choose(None, environ={})
    assert (len(cores), cores.pinned, remark) == (128, True, "")
    assert cores.take(1) == (0,)
    assert cores.take(1) == (1,)
    assert cores.take(2) == (2, 66)
    assert {core % 64 // 32 for core in cores.take(64)} == {1}
    few, _ = choose(3, environ={})
    assert few.ids == (0, 64, 1)


@pytest.mark.usefixtures("big")
def test_workers_that_share_a_big_machine_get_whole_sockets() -> None:
    first, second = share(granted({}).ids, 2)
    assert {core % 64 // 32 for core in first} == {0}
    assert {core % 64 // 32 for core in second} == {1}


def test_without_a_topology_cores_go_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores_module, "_CPUS", tmp_path)
    assert cores_module.in_topological_order([5, 1, 3]) == (1, 3, 5)
    write(tmp_path / "cpu1/topology/thread_siblings_list", "nonsense")
    write(tmp_path / "cpu1/topology/physical_package_id", "")
    assert cores_module.in_topological_order([5, 1, 3]) == (1, 3, 5)


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


def test_cores_in_words() -> None:
    assert [named([3]), named([8, 1, 0])] == ["core 3", "cores 0-1,8"]
