"""The orders in which tasks can be handed out: pure functions from tasks to a new list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from executor.errors import UsageError

if TYPE_CHECKING:  # the command line's help names the orders, and need not wait for what a task needs
    from executor.task import Task

_cores = attrgetter("resources")

#: The values of ``--order``. All are stable: among tasks of equal cores, the one given first goes first.
ORDERS: dict[str, Callable[[Sequence[Task]], list[Task]]] = {
    "cores": lambda tasks: sorted(tasks, key=_cores),
    "cores-descending": lambda tasks: sorted(tasks, key=_cores, reverse=True),
    "file": lambda tasks: list(tasks),
}


def order(tasks: Sequence[Task], by: str = "cores") -> list[Task]:
    """Return the tasks in the order that `by`, a key of `ORDERS`, names: increasing cores by default.

    Raises:
        UsageError: there is no such order.
    """
    if by not in ORDERS:
        raise UsageError(f"there is no order {by!r}; known are {', '.join(ORDERS)}")
    return ORDERS[by](tasks)
