"""The errors that the scripts know, and the exit status each one leads to.

    ExecutorError
    ├── UsageError               2   a wrong option, file or setting: one line with place and remedy
    │   ├── ConfigError              a key of a YAML file
    │   ├── TaskFileError            one or many mistakes in a task file
    │   ├── UnknownFunction          a name that leads to nothing callable
    │   └── NotAllowed               a function that is none of those a worker's `allow` has
    ├── NobodyThere              3   no peer came within ``--wait``
    ├── TransportError           1   the wire itself failed for good
    ├── WorkersFailed            1   the workers of ``--workers N`` end by themselves, again and again
    ├── OutputFailed             1   results can't be written any more
    ├── NoProcess                1   the system refuses a worker the processes that run tasks
    ├── CannotTravel                 a value that has no form on the wire; it becomes its task's error
    └── BadFrame                     bytes that are none of ours; logged and dropped, never fatal

What a user's function raises is none of these: it is data in its result.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own constant would cost executor_cli.py its import
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Every result is ok, or the worker was drained as asked.
EXIT_OK = 0
#: The run ended, and some result is not ok; executor_cli: the function raised.
EXIT_NOT_OK = 1
#: Nothing was run: the command line, a file or a setting is wrong (argparse's own choice too).
EXIT_USAGE = 2
#: Nobody to talk to within ``--wait``.
EXIT_NOBODY = 3
#: 128 + SIGINT, as shells report it.
EXIT_INTERRUPTED = 130
#: 128 + SIGTERM.
EXIT_TERMINATED = 143


class ExecutorError(Exception):
    """Base of all errors of this project; its text is one line for the user."""

    exit_status = EXIT_NOT_OK


class UsageError(ExecutorError):
    """The user asked for something that can't be done as asked; the text says where and the remedy."""

    exit_status = EXIT_USAGE


class ConfigError(UsageError):
    """A configuration file or one of its keys is wrong."""


class TaskFileError(UsageError):
    """A task file is refused whole; `mistakes` holds one line for each mistake found.

    The text shows the first `MOST_SHOWN`: a file with more has one cause, and these show it.
    """

    MOST_SHOWN = 20

    def __init__(self, mistakes: Sequence[str]) -> None:
        shown = list(mistakes[: self.MOST_SHOWN])
        if rest := len(mistakes) - len(shown):
            shown.append(f"and {rest:,} more")
        if len(mistakes) > 1:
            shown.insert(0, f"nothing was run, as there are {len(mistakes):,} mistakes:")
        super().__init__("\n".join(shown))
        self.mistakes = list(mistakes)


class UnknownFunction(UsageError):
    """The name leads to no callable: nothing of that name, an alias, or a plain value."""


class NotAllowed(UsageError):
    """The function is none of those that the worker's YAML allows."""


class NobodyThere(ExecutorError):
    """No peer was there within the time that ``--wait`` allows."""

    exit_status = EXIT_NOBODY


class TransportError(ExecutorError):
    """The wire failed for good; the library's own exception is the cause."""


class WorkersFailed(ExecutorError):
    """The workers that the dispatcher started end by themselves, again and again."""


class OutputFailed(ExecutorError):
    """Results can't be written (a full disk, a closed pipe); `for_good`: it makes no sense to try again."""

    def __init__(self, text: str, *, for_good: bool = False) -> None:
        super().__init__(text)
        self.for_good = for_good


class NoProcess(ExecutorError):
    """The system refuses to make a process, or lacks the descriptors for one."""


class CannotTravel(ExecutorError):
    """A value has no form on the wire; the text names its type and what to return instead."""


class BadFrame(ExecutorError):
    """Bytes that no peer of ours would have sent."""
