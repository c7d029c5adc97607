"""What a connection's owner asks for, on its way into the connection's thread, and done there in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pika.exceptions

from transports.rabbitmq.words import in_words


class Commands:
    """Does what is asked for while a connection stands; what was asked of an earlier one is dropped.

    Some commands are questions: nothing that was asked for later is done before their answer is there. Pika
    lets such commands wait for each other, but sends publications at once, before queues that stand in this
    line are declared.

    `wake` has a function called in the thread, `failed` is told why a command could not be done.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object], failed: Callable[[str], None]) -> None:
        self._wake = wake
        self._failed = failed
        self._handed: deque[tuple[int, Callable[[], object], bool]] = deque()  # from owner to thread
        self._woken = False  # whether the thread is yet to look at these
        self._waiting: deque[tuple[Callable[[], object], bool]] = deque()
        self._generation = 0  # of the connection that stands, or stood last
        self._stands = False
        self._then: Callable[[], None] | None = None
        #: Whether a question is not answered yet.
        self.asking = False

    # -- for the owner

    def put(self, generation: int, command: Callable[[], object], *, answered: bool) -> None:
        """Have a command done on the connection of a generation; `answered` if it is a question."""
        self._handed.append((generation, command, answered))
        if not self._woken:  # one wake-up for all that is asked for until the thread looks
            self._woken = True
            self._wake(self._look)

    # -- in the thread

    def begin(self, generation: int) -> None:
        """A connection stands."""
        self._generation, self._stands = generation, True

    def drop(self) -> None:
        """It does no more: what was asked of it is void."""
        self._stands = self.asking = False
        self._waiting.clear()

    def answer(self) -> None:
        """The question was answered."""
        self.asking = False
        self._go_on()

    def end(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as what was asked for is done."""
        self._then = then
        self._go_on()

    def _look(self) -> None:
        """Take what the owner asks for."""
        self._woken = False  # before the look: what comes after it wakes again
        while self._handed:
            generation, command, answered = self._handed.popleft()
            if generation == self._generation and self._stands:
                self._waiting.append((command, answered))
        self._go_on()

    def _go_on(self) -> None:
        """Do what is asked for, in order."""
        while self._waiting and not self.asking and self._stands:
            command, self.asking = self._waiting.popleft()
            try:
                command()
            except pika.exceptions.AMQPError as error:  # closed a moment ago, which the loop tells next
                self._failed(in_words(error))
                return
        if self._then is not None and not self.asking:
            self._then()
