"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Time limits are pytest-timeout's. On a laptop every run tries new examples and remembers those that failed;
# in CI the examples are the same each time, so that a change is judged by itself alone.
settings.register_profile("laptop", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")
