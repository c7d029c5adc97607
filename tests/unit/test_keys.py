"""The user's keys: made once, kept from others, and the same wherever their folder is copied."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from executor import keys
from executor.errors import ConfigError

ROOT = Path(__file__).parents[2]


def script(*words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    command = [sys.executable, str(ROOT / "keys.py"), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def test_the_first_need_makes_them_for_this_user_alone(tmp_path: Path) -> None:
    made = keys.load(tmp_path / "config" / "keys")
    assert len(made.secret) == 32
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700
    assert [path.name for path in made.folder.iterdir()] == [keys.FILE]
    assert stat.S_IMODE((made.folder / keys.FILE).stat().st_mode) == 0o600
    assert keys.load(made.folder) == made


def test_of_several_that_make_them_at_once_all_have_the_same(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from executor import keys\n"
        f"sys.stdin.readline(); print(keys.load(Path({str(tmp_path / 'keys')!r})).fingerprint)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    with ThreadPoolExecutor(8) as threads:
        said = {out for out, _ in threads.map(lambda each: each.communicate("go\n", timeout=60), started)}
    assert len(said) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [keys.FILE]


def test_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert keys.place() == Path("/home/ann/.config/function-executor/keys")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/ann")
    assert keys.place() == Path("/etc/ann/function-executor/keys")
    monkeypatch.setenv(keys.VARIABLE, "/shared/keys")
    assert keys.place() == Path("/shared/keys")
    assert keys.place("~/mine") == Path("/home/ann/mine")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_could_read_is_refused_with_the_remedy(tmp_path: Path, what: str) -> None:
    made = keys.load(tmp_path / "keys")
    loose, mode = (made.folder, "700") if what == "folder" else (made.folder / keys.FILE, "600")
    loose.chmod(0o744 if what == "folder" else 0o640)
    with pytest.raises(ConfigError, match=f"type: chmod {mode} {loose}"):
        keys.load(made.folder)
    loose.chmod(int(mode, 8))
    assert keys.load(made.folder) == made


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"0" * 65, b"g" * 64, b"0" * 64 + b"\n0"])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    made = keys.load(tmp_path / "keys")
    (made.folder / keys.FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="is not what keys"):
        keys.load(made.folder)


def test_a_link_to_somebody_elses_file_is_not_followed(tmp_path: Path) -> None:
    made, other = keys.load(tmp_path / "keys"), keys.load(tmp_path / "other")
    (made.folder / keys.FILE).unlink()
    (made.folder / keys.FILE).symlink_to(other.folder / keys.FILE)
    with pytest.raises(ConfigError, match="symbolic link"):
        keys.load(made.folder)


def test_keys_for_purposes_tell_nothing_of_each_other(tmp_path: Path) -> None:
    one, two = keys.load(tmp_path / "one"), keys.load(tmp_path / "two")
    derived = [each.derive(purpose) for each in (one, two) for purpose in ("zmq", "rabbitmq")]
    assert len({*derived, one.secret, two.secret}) == 6
    assert one.derive("zmq") == one.derive("zmq")


def test_a_copied_folder_is_the_same_user(tmp_path: Path) -> None:
    made = keys.load(tmp_path / "keys")
    keys.export(made, tmp_path / "exported")
    shutil.copytree(tmp_path / "exported", tmp_path / "there")
    assert keys.load(tmp_path / "there").secret == made.secret
    with pytest.raises(ConfigError, match="is there already"):
        keys.export(made, tmp_path / "exported")


def test_the_script_shows_renews_and_exports(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "function-executor" / "keys"
    shown = script(home=tmp_path)
    first = keys.load(folder)
    assert shown.returncode == 0
    assert str(folder) in shown.stdout
    assert first.fingerprint in shown.stdout
    assert first.secret.hex() not in shown.stdout
    assert "made just now, as there were none" in shown.stdout
    assert ", made 2" in script("show", home=tmp_path).stdout

    exported = script("export", tmp_path / "copy", home=tmp_path)
    assert exported.returncode == 0
    assert keys.load(tmp_path / "copy").secret == first.secret

    renewed = script("renew", home=tmp_path)
    assert renewed.returncode == 0
    assert keys.load(folder).secret != first.secret
    assert keys.load(folder).fingerprint in renewed.stdout

    assert (
        keys.load(tmp_path / "copy").fingerprint in script("--keys", tmp_path / "copy", home=tmp_path).stdout
    )


@pytest.mark.parametrize("words", [["export"], ["show", "folder"], ["renew", "folder"]])
def test_the_script_refuses_what_makes_no_sense(tmp_path: Path, words: list[str]) -> None:
    ran = script(*words, home=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith("keys.py: error: ")
    assert ran.stderr.count("\n") == 1
