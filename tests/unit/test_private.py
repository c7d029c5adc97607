"""Folders and locks of this user alone, and the neighbours that they make known."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.errors import ConfigError
from executor.neighbours import Presence, remark
from executor.private import Lock, RunFolder, check_socket_path, private_folder, runtime_folder

ROOT = Path(__file__).parents[2]

HOLD = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from executor.private import Lock
assert Lock(Path(sys.argv[2])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def another_holds(tmp_path: Path) -> Iterator[Path]:
    """A lock that another process holds."""
    path = tmp_path / "held"
    command = [sys.executable, "-c", HOLD, str(ROOT), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield path
        other.kill()


def test_the_runtime_folder_is_private(runtime: Path) -> None:
    folder = runtime_folder()
    assert folder == runtime / "function-executor"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert runtime_folder() == folder


def test_without_one_it_lies_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value in ("", str(tmp_path / "missing"), "."):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert runtime_folder() == tmp_path / f"function-executor-{os.getuid()}"


def test_a_folder_that_others_may_enter_is_refused_with_the_chmod(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match=r"chmod 700 .*/open"):
        private_folder(folder)


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(ConfigError, match="not a folder of yours"):
            private_folder(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        private_folder(tmp_path / "no" / "such")


def test_paths_too_long_for_a_socket() -> None:
    check_socket_path("/" + "x" * 100)
    with pytest.raises(ConfigError, match="too long"):
        check_socket_path("/" + "x" * 110)


def test_a_lock_is_one_processes_and_ends_with_it(another_holds: Path) -> None:
    lock = Lock(another_holds)
    assert not lock.acquire()
    assert lock.holder().isdigit()
    os.kill(int(lock.holder()), 9)
    while not lock.acquire():  # bounded by the test's time limit
        pass
    assert lock.holder() == str(os.getpid())
    lock.release()
    lock.release()


def test_the_folder_of_a_run_ends_with_it(runtime: Path) -> None:
    run, other = RunFolder(), RunFolder()
    run.open()
    assert run.path.stat().st_mode & 0o777 == 0o700
    other.open()  # does not take the first for one that was left
    assert run.path.is_dir()
    for each in (run, other, run):
        each.close()
    assert [path.name for path in (runtime / "function-executor").iterdir()] == ["runs.lock"]


def test_folders_that_were_left_are_removed() -> None:
    left, just_begun = runtime_folder() / "run-left", runtime_folder() / "run-begun"
    left.mkdir()
    just_begun.mkdir()
    (left / "lock").touch()
    run = RunFolder()
    run.open()
    run.close()
    assert not left.exists()
    assert not just_begun.exists()


def test_neighbours_on_the_same_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Presence("first", (0, 1, 2))
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    second, third = Presence("second", (2, 3)), None
    assert [each.name for each in second.overlapping()] == ["first"]
    assert "core 2 with first" in remark(second.overlapping(), (2, 3))
    monkeypatch.setattr(os, "getpid", lambda: 4243)
    third = Presence("third", (7,))
    assert third.overlapping() == []
    assert remark([], (7,)) == ""
    for each in (first, second, third):
        each.close()
    assert not list((runtime_folder() / "workers").iterdir())


def test_a_dead_neighbour_is_forgotten() -> None:
    presence = Presence("me", (0,))
    dead = runtime_folder() / "workers" / "999999"
    dead.write_text('[999999,"dead",[0]]')
    assert presence.overlapping() == []
    assert not dead.exists()
    presence.close()
