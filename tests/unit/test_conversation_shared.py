"""Two dispatchers share workers, and each of them dies and is continued on its own."""

from __future__ import annotations

import random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from executor.session import Ended
from tests.unit.world import PATIENCE, Cable, FakeDispatcher, FakeWorker, World, a_world
from transports.settings import Keep

COUNT = 20


class Chain:
    """A run and those that continue it, over a cable to each worker."""

    def __init__(self, world: World, workers: list[FakeWorker], first: int) -> None:
        self.world = world
        self.workers = workers
        self.present = world.dispatcher(COUNT, first=first, retries=100)
        self.cables = [Cable(world.names) for _ in workers]
        for cable, worker in zip(self.cables, workers, strict=True):
            cable.renames = True
            cable.join(self.present.link, worker.link)

    def replace(self, choice: random.Random) -> None:
        """Kill the dispatcher, and start one that continues its run."""
        dead = self.present
        dead.die()
        for cable in self.cables:
            cable.cut(noticed=choice.random() < 0.5, swallows=choice.random() < 0.5)
        self.world.turns(choice.choice([0.0, 0.01, 0.2, 2 * PATIENCE]))
        order = choice.choice([None, choice.sample(list(dead.order), COUNT)])
        self.present = self.world.resume(dead, order, push=choice.random() < 0.5)
        for cable, worker in zip(self.cables, self.workers, strict=True):
            cable.plug(self.present.link, worker.link)
        self.world.turns(choice.choice([0.0, 0.01, 0.2]))
        if not self.present.pushed:
            self.present.push()

    def heal(self) -> FakeDispatcher:
        for cable in self.cables:
            cable.arrive()
            cable.heal()
        return self.present


@settings(max_examples=100, phases=set(Phase) - {Phase.explain})
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["turns", "dies", "cut", "heal", "slow", "lazy", "work"]), st.integers(0, 2**16)
        ),
        max_size=20,
    ),
    st.sampled_from([Keep(), Keep(seconds=6.0), Keep(bytes=30_000), Keep(bytes=0)]),
)
def test_each_run_gets_its_own_once(events: list[tuple[str, int]], keep: Keep) -> None:
    with a_world() as world:
        workers = [world.worker(name, keep=keep) for name in "ab"]
        chains = [Chain(world, workers, first) for first in (0, 100)]
        for event, chance in events:
            choice = random.Random(chance)
            chain, worker, cable = choice.choice(chains), choice.choice(workers), choice.randrange(2)
            if event == "turns":
                world.turns(choice.choice([0.01, 0.05, 0.2, 1.2, 2 * PATIENCE]))
            elif event == "dies":
                chain.replace(choice)
            elif event == "cut":
                chain.cables[cable].cut(noticed=choice.random() < 0.5, swallows=choice.random() < 0.5)
            elif event == "heal":
                chain.cables[cable].heal()
            elif event == "slow":
                chain.cables[cable].slow = True
            elif event == "lazy":
                worker.lazy = not worker.lazy
            else:
                worker.work(1)
        for worker in workers:
            worker.lazy = False
        dispatchers = [chain.heal() for chain in chains]
        world.until(lambda: all(each.done() for each in dispatchers), seconds=6 * PATIENCE)
        for dispatcher in dispatchers:
            dispatcher.check()
            assert {result.status for result in dispatcher.results} == {"ok"}
        world.turns(2 * PATIENCE)
        for dispatcher in dispatchers:
            assert sum(view.held for view in dispatcher.end.workers()) == 0
        assert all(worker.end.settled for worker in workers)
        for dispatcher in dispatchers:
            dispatcher.end.close()
        world.turns(1)
        assert not any(worker.end.unclaimed for worker in workers)
        assert all(isinstance(worker.orders[-1], Ended) for worker in workers)
