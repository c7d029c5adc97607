"""Results are recorded before their workers forget them, also when for a while they can't be."""

from __future__ import annotations

import time
from collections.abc import Sequence

from executor.errors import OutputFailed
from executor.journal import Journal
from executor.task import Result
from executor.words import plural
from transports.base import DispatcherEnd, Say

#: Seconds for which it is tried again, where ``--wait`` says nothing else.
TRY_FOR = 30.0

#: Seconds between two attempts.
_TRY_AGAIN = 0.5


class Recording:
    """Writes results to a journal, or with None nowhere, and acknowledges those that are written.

    `stuck` is set while they can't be: then nothing is acknowledged, and nothing should be handed out, so
    that no more come than workers have. It is tried again for `wait` seconds (None: `TRY_FOR`).
    """

    def __init__(self, journal: Journal | None, end: DispatcherEnd, say: Say, wait: float | None) -> None:
        self._journal = journal
        self._end = end
        self._say = say
        self._wait = TRY_FOR if wait is None else wait
        self._why: OutputFailed | None = None
        self._since = self._tried_at = 0.0
        #: Whether the run ended with something that is not safe, and how many results are not even written.
        self.left = False
        self.unwritten = 0

    @property
    def stuck(self) -> bool:
        """Whether something can't be written."""
        return self._why is not None

    @property
    def resumable(self) -> bool:
        """Whether another run can go on with what was written."""
        return self._journal is not None and self._journal.resumable

    def take(self, results: Sequence[Result]) -> None:
        """Take results; `save` writes them."""
        if self._journal is not None:
            self._journal.write(results)

    def save(self) -> None:
        """Write what was taken, and have the workers forget what they reported.

        Raises:
            OutputFailed: it can't be written, for good.
        """
        if not self.stuck:
            self._try(finish=False)

    def turn(self) -> None:
        """Sync, or try again, when it is time to. To be called several times a second.

        Raises:
            OutputFailed: it could not be written for too long, or for good.
        """
        if self._journal is None:
            return
        if self._why is None:
            try:
                self._journal.tick()
            except OutputFailed as error:
                self._fail(error)
            return
        now = time.monotonic()
        if now - self._since >= self._wait:
            raise self._why
        if now - self._tried_at >= _TRY_AGAIN:
            self._try(finish=True)

    def finish(self) -> bool:
        """Write and sync all; return whether that is done.

        Raises:
            OutputFailed: it can't be written, for good.
        """
        if not self.stuck:
            self._try(finish=True)
        return not self.stuck

    def leave(self) -> None:
        """The run ends here: what is not written stays with those who reported it."""
        if self._journal is None or not self.stuck:
            return
        self.left = True
        self._end.resumable = self.resumable  # a pipe nobody goes on with
        self.unwritten = self._journal.drop()
        self._why = None

    def _try(self, *, finish: bool) -> None:
        before = 0
        if self._journal is not None:
            before = self._journal.unwritten
            try:
                self._journal.flush()
                if finish:
                    self._journal.sync()
            except OutputFailed as error:
                self._fail(error)
                return
        self._end.acknowledge()
        if self._why is not None:
            self._why = None
            self._say(f"results can be written again: {plural(before, 'result')} that came meanwhile are")

    def _fail(self, error: OutputFailed) -> None:
        now = self._tried_at = time.monotonic()
        first, self._why = self._why is None, error
        if error.for_good:
            raise error
        if first:
            self._since = now
            self._say(f"{error}; trying again for {self._wait:g} s, and handing out nothing meanwhile")
