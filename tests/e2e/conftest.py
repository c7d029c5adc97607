"""What the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import Scripts

#: What a person keeps in the folder they work in.
JOBS = Path(__file__).with_name("jobs.py").read_text(encoding="utf-8")


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    """The scripts, in a folder that holds a module ``jobs``; no process may be left at the end."""
    tmp_path.joinpath("jobs.py").write_text(JOBS)
    environment = Scripts(tmp_path)
    try:
        yield environment
    finally:
        environment.close()
