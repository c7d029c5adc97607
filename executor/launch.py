"""Workers that a dispatcher starts on its own machine for one run, and ends with it: ``--workers N``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from executor import cores
from executor.config import Wire
from executor.errors import ConfigError, WorkersFailed
from executor.private import RunFolder
from executor.words import plural
from transports.base import Say

_WORKER = Path(__file__).resolve().parent.parent / "worker.py"

#: Workers that may die in one run and be replaced; more than these, and something is wrong for good.
REPLACED_MOST = 20

#: Seconds that workers get to end before they are killed.
_ENDING = 5.0


class LocalWorkers:
    """`count` workers on this machine, each with `width` cores, or its share of the granted ones (None).

    They run from `open` to `close`, and end when its process ends in whatever way: each holds the reading end
    of a pipe whose writing end only this process has.

    Raises:
        ConfigError: there is no folder for their sockets, or its path is too long for one.
    """

    def __init__(self, count: int, width: int | None, wire: Wire, *, say: Say) -> None:
        self._say = say
        self._folder = RunFolder()
        self._read = self._write = -1
        self._processes: dict[int, subprocess.Popen[bytes]] = {}  # by worker, from 0
        self._replaced = 0
        try:
            self._own, self._each = wire.transport.private(wire.settings, str(self._folder.path), count)
        except ValueError as error:  # settings refuse an address so, see `transports.settings.checked`
            raise ConfigError(str(error)) from error
        granted = cores.granted()
        shares = cores.share(granted.ids, count)
        #: Cores of each worker.
        self.widths = [width or max(1, len(share)) for share in shares]
        self._masks: list[tuple[int, ...] | None] = [None] * count
        self._pin = sum(self.widths) <= len(granted.ids)
        if self._pin:
            start = 0
            for index, wanted in enumerate(self.widths):
                self._masks[index] = granted.ids[start : start + wanted]
                start += wanted
        else:
            say(
                f"{plural(count, 'worker')} of {max(self.widths):,} on {plural(len(granted.ids), 'core')}: "
                "tasks share them and are not pinned"
            )

    @property
    def settings(self) -> Any:
        """The dispatcher's settings, on an address that only these workers know."""
        return self._own

    def open(self) -> None:
        """Start them."""
        self._read, self._write = os.pipe()
        self._folder.open()
        for index, settings in enumerate(self._each):
            # In JSON: a parser of YAML takes as long to load as a tenth of the rest of a worker.
            self._file(index).write_bytes(msgspec.json.encode(settings))
            self._start(index)

    def _file(self, index: int) -> Path:
        return self._folder.path / f"worker-{index}.json"

    def _command(self, index: int) -> list[str]:
        command = [sys.executable, str(_WORKER), "--yaml", str(self._file(index))]
        command += ["--name", f"local-{index + 1}", "--cores", str(self.widths[index])]
        command += ["--once", "--lifeline", str(self._read)]
        return command if self._pin else [*command, "--no-pin"]

    def _start(self, index: int) -> None:
        mask = self._masks[index]
        before = os.sched_getaffinity(0) if mask is not None and sys.platform == "linux" else None
        try:
            if before is not None:
                # Inherited by the worker, which takes the mask for its grant. Set here rather than in
                # the child after a fork, where no Python should run.
                os.sched_setaffinity(0, mask or ())
            self._processes[index] = subprocess.Popen(
                self._command(index),
                stdin=subprocess.DEVNULL,
                stdout=2,  # our stdout is for results
                pass_fds=[self._read],
                start_new_session=True,  # Ctrl-C is for the dispatcher to deal with
            )
        finally:
            if before is not None:
                os.sched_setaffinity(0, before)

    def check(self) -> list[int]:
        """Replace workers that have died; return the process ids of the dead.

        Raises:
            WorkersFailed: they die again and again.
        """
        dead: list[int] = []
        for index, process in list(self._processes.items()):
            status = process.poll()
            if status is None:
                continue
            dead.append(process.pid)
            self._replaced += 1
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            if self._replaced > REPLACED_MOST or status == 2:
                before = f"; {self._replaced - 1} were replaced before it" if self._replaced > 1 else ""
                raise WorkersFailed(f"worker local-{index + 1} ended ({how}){before}")
            self._say(f"worker local-{index + 1} died ({how}); starting another")
            self._start(index)
        return dead

    def abandon(self) -> None:
        """Leave no folder, right before a signal ends this process; the workers notice and end as well."""
        self._folder.close()

    def close(self) -> None:
        """End the workers and all that they run, and wait for that. Closing twice is harmless."""
        if self._write < 0:
            return
        os.close(self._write)
        os.close(self._read)
        self._write = -1
        deadline = time.monotonic() + _ENDING
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._folder.close()
