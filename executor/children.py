"""A worker's child processes: made, found, heard and ended. What they run, and when, is the pool's.

There is one guardian, which makes them, and one channel and board for each. Whatever happens to them comes
out of `hear`, in order, and the end of a child last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from executor.beginning import Begun
from executor.cgroup import Group, delegated
from executor.ears import WRITABLE, Ears
from executor.errors import BadFrame, NoProcess
from executor.guardian import DIED, FORKED, Guardian
from executor.line import Entry
from executor.messages import Buffer
from executor.process import Child

#: Seconds after which it is tried again to make a child, when the system refused one.
_REFUSED_SECONDS = 1.0


class Spoke(msgspec.Struct, frozen=True):
    """Frames came from a child."""

    child: Child
    frames: list[list[Buffer]]


class Died(msgspec.Struct, frozen=True):
    """A child is dead, and all that it started; `status` is how it ended (negative: the signal).

    None: it never lived, as the system refused a process.
    """

    child: Child
    status: int | None


Event: TypeAlias = Spoke | Died


class Children:
    """The children of one worker, which hears them with its `ears`.

    `grace` is the seconds from SIGTERM to SIGKILL; `allow` as in `Pool`; none has more than `widest` cores.
    `begun` is a guardian that waits already.
    """

    def __init__(
        self,
        ears: Ears,
        grace: float,
        allow: Sequence[str] | None = None,
        *,
        widest: int = 1,
        begun: Begun | None = None,
    ) -> None:
        self._ears = ears
        self._grace = grace
        self._allow = allow
        self._widest = widest
        self._by_slot: dict[int, Child] = {}  # a slot is a number that is never used again
        self._by_descriptor: dict[int, Child | None] = {}  # those that are heard; None: the guardian
        self._by_pid: dict[int, Child] = {}
        self._slots = 0
        self._refusal = NoProcess("")  # the last one, and until when it is not tried again
        self._refused_until = 0.0
        #: What `hear` has to tell that the ears do not.
        self.pending: list[Event] = []
        self._groups = delegated()
        self._guardian = self._new_guardian(begun)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._by_slot.values())

    def find(self, run: str, cores: tuple[int, ...]) -> Child:
        """Return an idle child for a run, one that is pinned to these cores already if there is one.

        Raises:
            NoProcess: there is none, and the system refuses to make one.
        """
        found = None
        for child in self._by_slot.values():
            if child.run in (None, run) and not (child.busy or child.dead or child.ending or child.worn):
                if child.last_cores == cores:
                    return child
                if found is None or (len(child.last_cores) == len(cores) != len(found.last_cores)):
                    found = child
        return found or self.fork()

    def prepare(self, count: int) -> None:
        """Have so many new children wait for calls, or as many as the system lets be made."""
        with contextlib.suppress(NoProcess):
            for _ in range(count):
                self.fork()

    def fork(self) -> Child:
        """Return a new child.

        Raises:
            NoProcess: the system refuses to make one.
        """
        if time.monotonic() < self._refused_until:
            raise self._refusal
        self._slots += 1
        try:
            try:
                child = Child(self._guardian, self._slots)
            except ConnectionError:
                self._replace_guardian()
                child = Child(self._guardian, self._slots)
        except OSError as error:
            raise self._refused(error) from error
        self._by_slot[child.slot] = child
        self._listen(child.channel.fileno(), child)
        return child

    def _refused(self, error: OSError) -> NoProcess:
        self._refusal = NoProcess(
            f"the system refuses another process for a task: {error.strerror}; allow more of them "
            "(ulimit -n, ulimit -u, or the memory), or use fewer --cores"
        )
        self._refused_until = time.monotonic() + _REFUSED_SECONDS
        return self._refusal

    def send(
        self, child: Child, batch: list[Entry], cores: tuple[int, ...], *, pin: bool, linger: float
    ) -> None:
        """Give a child a batch, see `Child.send`; if it dies of it or before, that is heard."""
        try:
            child.send(batch, cores, pin=pin, linger=linger)
        except OSError:  # it is dead or dying, which is heard next; no context manager, as this path is hot
            pass
        if child.channel.unsent and not child.dead:
            self._ears.change(child.channel.fileno(), writable=True)

    # -- hearing

    def _listen(self, descriptor: int, who: Child | None) -> None:
        self._by_descriptor[descriptor] = who
        self._ears.add(descriptor)

    def _ignore(self, descriptor: int) -> None:
        del self._by_descriptor[descriptor]
        self._ears.remove(descriptor)

    def hear(self, told: Sequence[tuple[int, int]]) -> Iterator[Event]:
        """Give what has happened, without waiting, by what the ears have `told`."""
        heard = self._by_descriptor
        # All at first: a descriptor that is closed meanwhile may come again as another's.
        for child, events in [(heard[each], events) for each, events in told if each in heard]:
            if child is None:
                self._hear_guardian()
            elif not child.dead:
                if events & WRITABLE:
                    self._flush(child)
                if events != WRITABLE and (frames := self._receive(child)):
                    yield Spoke(child, frames)
            while self.pending:
                yield self.pending.pop(0)
        while self.pending:
            yield self.pending.pop(0)

    def _flush(self, child: Child) -> None:
        try:
            child.channel.flush()
            waits = child.channel.unsent
        except OSError:  # it is dead or dying: what it has reported is still to be read, up to the end
            waits = False
        if not waits:
            self._ears.change(child.channel.fileno(), writable=False)

    def _receive(self, child: Child) -> list[list[Buffer]]:
        """Return the frames that have come from a child; none at its end, or if they have not come whole."""
        try:
            frames = child.channel.receive()
        except BadFrame:
            self.cut_off(child)
            return []
        except OSError:  # it is gone, as at the end of its stream
            frames = None
        if frames is None:
            self._hang_up(child)
        return frames or []

    def _hang_up(self, child: Child) -> None:
        """Listen no more to a child that is dead or dying; the guardian tells how it died."""
        child.dead = True
        self._ignore(child.channel.fileno())

    def _hear_guardian(self) -> None:
        records = self._guardian.receive()
        if records is None:
            try:
                self._replace_guardian()
            except OSError as error:  # it is tried again when a child is needed
                self._refused(error)
            return
        for what, first, second in records:
            if what == FORKED and second < 0:
                child = self._by_slot[first]
                self._refused(OSError(-second, os.strerror(-second)))
                self._lay_out(child, None)
            elif what == FORKED:
                child = self._by_slot[first]
                child.pid = second
                if self._groups is not None:
                    child.group = Group(self._groups, second)
                self._by_pid[second] = child
                if child.ending is not None:  # decided before its number was known
                    self._signal(child)
            elif what == DIED:
                self._lay_out(self._by_pid.pop(first), second)

    def _lay_out(self, child: Child, status: int | None) -> None:
        """A child is dead: read what it still had to say."""
        while not child.dead:
            frames = self._receive(child)
            if frames:
                self.pending.append(Spoke(child, frames))
            elif not child.dead:
                self._hang_up(child)
        del self._by_slot[child.slot]
        self.pending.append(Died(child, status))

    def _new_guardian(self, begun: Begun | None = None) -> Guardian:
        guardian = Guardian(self._groups, self._allow, widest=self._widest, begun=begun)
        self._listen(guardian.sock.fileno(), None)
        return guardian

    def _replace_guardian(self) -> None:
        """Somebody killed the guardian: its children die with it, and what they started is ended here.

        Raises:
            OSError: the system refuses to make another.
        """
        if (descriptor := self._guardian.sock.fileno()) in self._by_descriptor:
            self._ignore(descriptor)
        for child in self:
            if child.pid:
                with contextlib.suppress(OSError):  # it died with the guardian
                    os.killpg(child.pid, signal.SIGKILL)
        self._guardian.close()
        self._by_pid.clear()
        for child in list(self):  # first, as nobody else will tell of them
            self._lay_out(child, -signal.SIGKILL)
        self._guardian = self._new_guardian()

    # -- ending

    def kill(
        self, child: Child, why: str, condemned: Sequence[Entry] = (), number: int = signal.SIGTERM
    ) -> None:
        """Begin to kill a child for what its `condemned` entries do; SIGKILL follows after the grace."""
        child.ending, child.condemned = why, condemned
        child.kill_with, child.kill_at = number, time.monotonic() + self._grace
        self._signal(child)

    def cut_off(self, child: Child) -> None:
        """Kill a child that sent what is none of ours, for the call that it runs, and hear it no more."""
        if child.dead:
            return
        current = child.current()
        blamed = next(iter(child.entries.values()), None) if current is None else current[0]
        self.kill(child, "foreign", () if blamed is None else (blamed,), signal.SIGKILL)
        self._hang_up(child)

    def end(self, child: Child) -> None:
        """End an idle child."""
        self.kill(child, "replaced", number=signal.SIGKILL)

    def insist(self, child: Child, now: float) -> float:
        """Send SIGKILL to a child that is being killed if its grace is over; return the seconds left."""
        if now >= child.kill_at and child.pid:
            child.kill_with, child.kill_at = signal.SIGKILL, now + max(self._grace, _REFUSED_SECONDS)
            self._signal(child)
        return max(0.001, child.kill_at - now)

    def _signal(self, child: Child) -> None:
        if child.pid:
            with contextlib.suppress(OSError):  # the guardian is gone, which is heard next
                self._guardian.signal(child.pid, child.kill_with)

    def close(self) -> None:
        """Kill what runs, and end every process."""
        self._guardian.close()
        for child in self:
            child.close()
        for event in self.pending:
            if isinstance(event, Died):
                event.child.close()
        self._by_slot.clear()
