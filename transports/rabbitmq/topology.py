"""What stands in the broker: queues and exchanges, their names and arguments, for both scripts alike.

    QUEUE.3                 calls of 3 cores that wait, in the order pushed
    QUEUE.3.first           ... that came back, or are tried again: they go before
    QUEUE.3.alone           ... whose last attempt must have a worker to itself
    QUEUE.held.WORKER       what a worker was given: its copy, unacknowledged for as long as it has it
    QUEUE.orphaned.WORKER   the same after its connection broke: it is back within its patience, or
    QUEUE.returned          what a worker had that vanished, or what came back too often: split, tried again
    QUEUE.results.RUN       reports; as long as it is there, for a while without its dispatcher, so is the run
    QUEUE.manifest.NAME     what a run is that was left in the broker under that name
    QUEUE.claim.NAME        empty, of the one dispatcher that pushes or collects such a run: nobody else may
    QUEUE.control           exchange: from dispatchers, and from workers about calls that came back
    QUEUE.presence          exchange: from workers, who they are and what they have

QUEUE is what the YAML says and eight digits of the user's keys, behind a dot.

All queues are quorum queues (replicated where the broker is a cluster), and pass on what they do at least
once (since RabbitMQ 3.10: message TTL and at-least-once dead-lettering of quorum queues).
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: Deliveries after which the broker gives a message up to `returned`: far above what disconnections cause.
DELIVERIES = 100

#: For queues whose messages are never given up; without it RabbitMQ 4 drops them after 20 deliveries.
_ENDLESS = 1_000_000_000

#: Arguments of a queue that keeps what it has.
_PLAIN = {"x-queue-type": "quorum", "x-delivery-limit": _ENDLESS}

#: Seconds after which the broker removes the queues of a worker that is gone, long emptied by then.
_WORKER_QUEUES = 86_400

#: Seconds without any use after which the broker removes queues that go with their run, if nobody else did.
#: Only a `get` or a subscription is a use (RabbitMQ 3.10), and wide calls may wait for long behind others.
_TEMPORARY = 7 * 86_400

#: The broker's heartbeats within which it misses a connection that broke: two, and one until it looks.
_MISSED_HEARTBEATS = 3

#: The first version that knows a queue's own acknowledgement timeout.
_KNOWS_CONSUMER_TIMEOUT = (3, 12)


class Topology(NamedTuple):
    """Names below `queue`; the workers' `patience` and the queues' acknowledgement timeout are in seconds.

    `keep` is for how many seconds the reports of a run outlive its dispatcher; `temporary` queues go with
    the run, or by themselves when nobody is left who could remove them.
    """

    queue: str
    patience: float
    acknowledgement_timeout: float
    keep: float = 3600.0
    temporary: bool = False

    @property
    def heartbeat(self) -> int:
        """Seconds between two heartbeats of a connection, as AMQP counts them."""
        return max(1, round(self.patience))

    @property
    def noticing(self) -> float:
        """Seconds after which the broker has certainly missed a connection that broke."""
        return _MISSED_HEARTBEATS * max(self.heartbeat, self.patience)

    @property
    def returning(self) -> float:
        """Seconds after which what a worker held that vanished is in `returned`, with some to spare.

        The broker misses the connection; the copies, if they are young, wait for a patience in `held`, and
        for another in `orphaned`.
        """
        return self.noticing + 3 * self.patience

    @property
    def control(self) -> str:
        """The exchange that workers listen to."""
        return f"{self.queue}.control"

    @property
    def presence(self) -> str:
        """The exchange that dispatchers listen to."""
        return f"{self.queue}.presence"

    @property
    def returned(self) -> str:
        """The queue of what has to be split and tried again."""
        return f"{self.queue}.returned"

    def line(self, width: int) -> str:
        """The queue of calls of so many cores."""
        return f"{self.queue}.{width}"

    def first(self, width: int) -> str:
        """The queue of calls that go before."""
        return f"{self.queue}.{width}.first"

    def alone(self, width: int) -> str:
        """The queue of calls that have a worker to themselves."""
        return f"{self.queue}.{width}.alone"

    def held(self, worker: str) -> str:
        """The queue of what a worker has."""
        return f"{self.queue}.held.{worker}"

    def orphaned(self, worker: str) -> str:
        """The queue of what a worker had when its connection broke."""
        return f"{self.queue}.orphaned.{worker}"

    def results(self, run: str) -> str:
        """The queue of a run's reports."""
        return f"{self.queue}.results.{run}"

    def manifest(self, name: str) -> str:
        """The queue of the records of a run that is kept under a name."""
        return f"{self.queue}.manifest.{name}"

    def claim(self, name: str) -> str:
        """The queue that is there while a dispatcher pushes or collects such a run."""
        return f"{self.queue}.claim.{name}"

    def passes_on(self, source: str, target: str) -> bool:
        """Whether the broker passes messages on from one of our queues to another, by itself."""
        if not source.startswith(f"{self.queue}."):
            return False
        kind, _, worker = source.removeprefix(f"{self.queue}.").partition(".")
        if kind == "held" and target == self.orphaned(worker):
            return True
        return target == self.returned and (kind == "held" or kind.isdigit())

    def of_width(self, width: int) -> dict[str, dict[str, Any]]:
        """Return the queues of a width, with their arguments."""
        arguments = {**self._to(self.returned), "x-delivery-limit": DELIVERIES, **self._ends()}
        # The line comes last: who finds it, by looking for it, finds the others too.
        return dict.fromkeys((self.alone(width), self.first(width), self.line(width)), arguments)

    def of_worker(self, worker: str, version: tuple[int, ...]) -> dict[str, dict[str, Any]]:
        """Return the queues of a worker, with their arguments, for a broker of that version.

        A message stays in `held` for as long as it is unacknowledged. When the connection breaks, one older
        than the patience is passed on to `orphaned` at once, where the same patience begins anew.
        """
        common = {
            "x-message-ttl": max(1, round(self.patience * 1000)),
            "x-expires": _WORKER_QUEUES * 1000,
            "x-delivery-limit": _ENDLESS,
        }
        if version >= _KNOWS_CONSUMER_TIMEOUT:
            common["x-consumer-timeout"] = round(self.acknowledgement_timeout * 1000)
        return {
            self.held(worker): {**self._to(self.orphaned(worker)), **common},
            self.orphaned(worker): {**self._to(self.returned), **common},
        }

    def of_run(self, run: str) -> dict[str, dict[str, Any]]:
        """Return the queues of a run that ends with its dispatcher, with their arguments."""
        kept = max(self.keep, self.returning)  # so that one whose connection broke finds it again
        return {self.results(run): {**_PLAIN, "x-expires": round(kept * 1000)}}

    def of_kept_run(self, name: str, run: str) -> dict[str, dict[str, Any]]:
        """Return the queues of a run that is left in the broker, with their arguments."""
        return {self.results(run): dict(_PLAIN), self.manifest(name): dict(_PLAIN)}

    def common(self) -> dict[str, dict[str, Any]]:
        """Return the queues that are always there, with their arguments."""
        return {self.returned: {**_PLAIN, **self._ends()}}

    def _ends(self) -> dict[str, Any]:
        return {"x-expires": _TEMPORARY * 1000} if self.temporary else {}

    def _to(self, target: str) -> dict[str, Any]:
        return {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": target,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # which at-least-once asks for
        }
