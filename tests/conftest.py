"""What all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.contract.rabbit import server_script

# Time limits are pytest-timeout's. On a laptop every run tries new examples and remembers those that failed;
# in CI the examples are the same each time, so that a change is judged by itself alone.
settings.register_profile("laptop", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")

#: Fixtures that start a RabbitMQ: one that tests share, and one that they may kill.
_BROKERS = {"rabbitmq_url", "broker"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install RabbitMQ, where that is done, before any test's time runs."""
    wanted = any(_BROKERS.intersection(getattr(item, "fixturenames", ())) for item in session.items)
    if wanted and not session.config.option.collectonly:
        server_script()
