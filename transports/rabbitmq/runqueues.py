"""The queues of a dispatcher's run over connections that come and go: declared, found again, lost, or gone.

A run is there for as long as its results queue is. Over a new connection it is looked for, as to declare it
would bring back a run that somebody has removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from executor.errors import TransportError
from executor.messages import Alive
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.continued import Continued
from transports.rabbitmq.presence import Open
from transports.rabbitmq.topology import Topology

#: Messages of reports that are delivered and not acknowledged, at most.
PREFETCH = 200


class RunQueues:
    """The `queues` of the run `own`, with their arguments; those of its calls' widths; and the results queues
    of other runs that are `continued`.

    They are declared if it `declares`, and reports are delivered if it `consumes`. With `stays` the run was
    left there, and goes on by itself. `tell` tells all workers something, `lost` is told a run that the
    broker has lost.
    """

    def __init__(
        self, connection: Connection, names: Topology, own: str, queues: Mapping[str, dict[str, Any]],
        open_: Open, continued: Continued, *, declares: bool, consumes: bool, stays: bool,
        tell: Callable[[Alive], None], lost: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._names = names
        self._own = own
        self._results = names.results(own)
        self._queues = queues
        self._open = open_
        self._continued = continued
        self._declares = declares
        self._consumes = consumes
        self._stays = stays
        self._tell = tell
        self._lost = lost
        #: Whether the results queue was seen to be there.
        self.stands = False
        self._seeking = False  # it is looked for over a new connection
        self._removed = False  # it was deleted before our eyes
        self._seeking_earlier: set[str] = set()  # results queues of earlier runs that are looked for

    @property
    def seeking(self) -> bool:
        """Whether it is not known yet which results queues are there."""
        return self._seeking or bool(self._seeking_earlier)

    def opened(self) -> None:
        """There is a new connection."""
        if self.stands:
            self._seeking = True
            self._connection.look_for(self._results)
        else:
            self.open()

    def open(self) -> None:
        """Declare what the run needs; have its reports delivered, and those of the runs that it continues."""
        if self._declares:
            for width in sorted(self._open.counts):
                for queue, arguments in self._names.of_width(width).items():
                    self._connection.declare(queue, arguments)
            for queue, arguments in self._queues.items():
                self._connection.declare(queue, arguments)
        if self._consumes:
            self.consume()
        self._seeking_earlier = {self._names.results(run) for run in self._continued.sought()}
        for queue in self._seeking_earlier:
            self._connection.look_for(queue)

    def consume(self) -> None:
        """Have the run's reports delivered."""
        self._connection.consume(self._results, prefetch=PREFETCH)

    def ended(self, queue: str) -> None:
        """The broker ended the subscription to a queue, as it does when that is deleted."""
        self._removed = self._removed or queue == self._results

    def found(self, queue: str, *, there: bool) -> bool:
        """Take the answer whether a queue is there; return whether it was looked for to know of a run.

        Raises:
            TransportError: the run is gone.
        """
        if self._seeking and queue == self._results:
            self._seeking = False
            self._find_own(there)
        elif queue in self._seeking_earlier:
            self._seeking_earlier.discard(queue)
            self._find_earlier(queue, there)
        else:
            return False
        return True

    def seen(self, queue: str, *, there: bool) -> None:
        """A queue that calls or reports wait in was looked into."""
        if there:
            self.stands = self.stands or queue == self._results
            return
        names = self._names  # somebody deleted it: workers and we need it
        for some in (names.common(), *(names.of_width(width) for width in self._open.counts)):
            if queue in some:
                self._connection.declare(queue, some[queue])

    def end(self) -> None:
        """The run is removed: nothing is declared or looked for any more."""
        self.stands = self._seeking = self._declares = self._consumes = False

    def _find_own(self, there: bool) -> None:
        """Go on with our run over a new connection, if its results queue is there.

        Without it somebody has removed the run, and means it: if it was deleted before our eyes, or if it was
        left in the broker, where it is removed from elsewhere. Otherwise the broker has lost it, as its data
        was wiped or we were away for too long; a run whose dispatcher is there goes on.
        """
        if there:
            self._removed = False
            self.open()
        elif self._stays or self._removed:
            raise TransportError(
                f"the run is gone from {self._connection.address}, queue {self._names.queue}: "
                "it was cancelled, or its results queue deleted"
            )
        else:
            self.stands = False
            self.open()
            self._tell(Alive(self._own))  # to workers that have found it gone
            self._lost(self._own)

    def _find_earlier(self, queue: str, there: bool) -> None:
        """Gather an earlier run's reports, too; if it is gone, its calls are ours."""
        run = self._continued.run_of(queue)
        assert run is not None
        self._continued.found(run, there)
        if there:
            self._connection.consume(queue, prefetch=PREFETCH)
            self._tell(Alive(run))
        else:
            self._lost(run)
