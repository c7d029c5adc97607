"""Settings in JSON, as local workers get theirs; all else of settings is in the end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from executor import config
from executor.errors import ExecutorError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "wire.json"
    path.write_text(
        '{"transport": "zmq", "address": "tcp://127.0.0.1:1", "heartbeat": 2, "keep": {"seconds": 5}}'
    )
    return path


def test_settings_in_json_are_those_in_yaml(written: Path) -> None:
    yaml = written.with_suffix(".yml")
    yaml.write_text(written.read_text())
    assert config.read(str(written)) == config.read(str(yaml))


def test_settings_in_json_take_no_yaml_parser(written: Path) -> None:
    program = (
        "import sys; from executor import config; config.read(sys.argv[1]); assert 'yaml' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(written)], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"transport": "zmq", "transport": "grpc"}', "transport"),  # twice
        ('{"transport": "zmq"', "wire"),
        ('["zmq"]', "must hold keys and values"),
    ],
)
def test_what_is_wrong_in_json_is_said_as_of_yaml(written: Path, text: str, says: str) -> None:
    yaml = written.with_suffix(".yml")
    complaints = []
    for path in (written, yaml):
        path.write_text(text)
        with pytest.raises(ExecutorError, match=says) as raised:
            config.read(str(path))
        complaints.append(str(raised.value).replace(str(path), "it"))
    assert complaints[0] == complaints[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keep: {second: 3}", "keep.second: unknown key; did you mean seconds?"),
        ("keep: {3: 3}", "keep: expected a text as a key"),
        ("keep: {days: 3}", "keep.days: unknown key; known are seconds, bytes"),
        ("{transport: rabbitmq, url: broker}", "url: write amqp://user:password@host:port/virtual-host, or "),
        ("{transport: rabbitmq, queue: a/b}", "queue: must be of letters, digits, and . _ - between them"),
        ("adress: unix:/x", "adress: unknown key for transport zmq; did you mean address?"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_file_and_key(written: Path, text: str, says: str) -> None:
    yaml = written.with_suffix(".yml")
    yaml.write_text(text)
    with pytest.raises(ExecutorError) as raised:
        config.read(str(yaml))
    assert str(raised.value).startswith(f"{yaml}: {says}")


def test_a_mistake_in_an_option_is_named_with_the_option(written: Path) -> None:
    with pytest.raises(ExecutorError, match=r"^--yaml '': names no file$"):
        config.read("")
    written.write_text('{"transport": "rabbitmq"}')
    with pytest.raises(ExecutorError, match=r"^--address: write amqp://user:password@host"):
        config.read(str(written), address="broker:5672", connect=None)
    with pytest.raises(ExecutorError, match=r"^--connect: is not for transport rabbitmq; --address is$"):
        config.read(str(written), address=None, connect="a:1")
