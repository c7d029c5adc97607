"""What all tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from executor.keys import VARIABLE
from tests.contract.rabbit import server_script
from tests.e2e.afterlife import see_to

# Time limits are pytest-timeout's. On a laptop every run tries new examples and remembers those that failed;
# in CI the examples are the same each time, so that a change is judged by itself alone.
settings.register_profile("laptop", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")

#: Fixtures that start a RabbitMQ: one that tests share, and one that they may kill.
_BROKERS = {"rabbitmq_url", "rabbitmq", "broker"}


def pytest_sessionstart() -> None:
    """Have what tests start end with this process; before one of them makes it a parent of orphans."""
    see_to(os.getpid())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install RabbitMQ, where that is done, before any test's time runs."""
    wanted = any(_BROKERS.intersection(getattr(item, "fixturenames", ())) for item in session.items)
    if wanted and not session.config.option.collectonly:
        server_script()


@pytest.fixture(scope="session", autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keys of the tests' own, made at the first need; scripts inherit where they are."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, half of it in use by a file ``ballast``."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs to mount a file system, as root may")
    try:
        (folder / "ballast").write_bytes(b"x" * 500_000)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
