"""The real scripts with a proxy on each link, and what strikes them: a plan's faults, and what mends them."""

from __future__ import annotations

import heapq
import itertools
import json
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from executor import taskfile
from executor.resume import UNFINISHED
from tests.chaos import chores, records
from tests.chaos.plan import HEARTBEAT, LINK, PATIENCE, Fault, Kind, Plan
from tests.contract.proxy import BACK, THERE, Proxy
from tests.contract.rabbit import RabbitMQ
from tests.contract.wires import RabbitMQ as RabbitMQWire
from tests.contract.wires import Wire
from tests.e2e.scripts import Script, Scripts

#: Seconds that a run may take, with all its faults. Ample: it takes ten or twenty.
BOUND = 150.0

#: Seconds without another result after which the next fault comes: the last may have stopped everything.
STUCK = 6.0

#: Seconds that a drained worker may take, whose link may be away.
DRAINED = 40.0

#: How often a run may be told to try again what has failed.
ROUNDS = 10

RESULTS = "results.jsonl"


class Wrong(AssertionError):
    """A promise was broken; the text tells which."""


class Slot:
    """A worker's place: a link, and the worker that is there just now."""

    def __init__(self, index: int, cores: int, yaml: Path) -> None:
        self.index, self.cores, self.yaml = index, cores, yaml
        self.script: Script | None = None
        self.count = 0
        self.draining = False

    @property
    def alive(self) -> bool:
        return self.script is not None and not self.script.ended

    @property
    def said(self) -> str:
        """What the worker that is there has said."""
        return "" if self.script is None else self.script.stderr

    @property
    def ready(self) -> bool:
        """Whether it can be told to drain: before, it would just end."""
        return (
            self.alive and not self.draining and self.script is not None and "ready on" in self.script.stderr
        )


class Stage:
    """One run of a plan on a wire. Use it as a context; `play` it once."""

    def __init__(self, plan: Plan, wire: Wire, scripts: Scripts, broker: RabbitMQ | None) -> None:
        self.plan, self.scripts, self.folder = plan, scripts, scripts.folder
        self.struck: Counter[Kind] = Counter()
        self.story: list[str] = []  # what happened, for people
        self._wire, self._broker = wire, broker
        self._stack = ExitStack()
        self._began = time.monotonic()
        self._timers: list[tuple[float, int, Callable[[], None], bool]] = []
        self._numbers = itertools.count()
        self._dispatcher: Script | None = None
        self._ends: set[int] = set()  # pids of what we told to end, or killed
        self._drained: list[Script] = []
        self._strangers: list[Script] = []
        self._incarnations = 0
        self._rounds = 0
        self._results, self._offset = 0, 0
        self._broker_work: threading.Thread | None = None
        self._broker_failed: BaseException | None = None
        (self.folder / "chores.py").write_text(Path(chores.__file__).read_text(encoding="utf-8"))
        self.records = records.records(plan.seed, plan.tasks)
        self._lay_links()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._broker_work is not None:
            self._broker_work.join()

    # -- what happens

    def play(self) -> None:
        """Run it to its end, with all faults that strike before.

        Raises:
            Wrong: it does not end, or ends in another way than it should.
        """
        self.scripts.tasks(*self.records)
        if not self.plan.local:
            for slot in self._slots:
                self._start_worker(slot)
        self._start_dispatcher()
        faults = list(self.plan.faults)
        armed: float | None = None
        moved_at = time.monotonic()
        while not self._over():
            now = time.monotonic()
            if now - self._began > BOUND:
                raise Wrong(f"not over within {BOUND:g} s: {self._count()} results")
            self._mend(now)
            before, results = self._results, self._count()
            if results != before:
                moved_at = now
            if faults:
                if armed is None and (results >= faults[0].results or now - moved_at > STUCK):
                    armed = now
                if armed is not None and now >= armed + faults[0].pause:
                    self._strike(faults.pop(0))
                    armed, moved_at = None, now
            time.sleep(0.01)
        self._tell(f"over; {len(faults)} faults did not come to strike")
        self._end()

    def _over(self) -> bool:
        """See whether processes ended that should not have, and resume the run where it is due."""
        for slot in self._slots:
            if slot.script is not None and slot.script.ended and slot.script.pid not in self._ends:
                raise Wrong(f"{slot.script.name} ended by itself with {slot.script.ends()}")
        for stranger in self._strangers:
            if stranger.ended and stranger.ends() != 0:
                raise Wrong(f"a stranger's run ended with {stranger.ends()}")
        if self._broker_failed is not None:
            raise self._broker_failed
        if self._dispatcher is None or not self._dispatcher.ended or self._dispatcher.pid in self._ends:
            return False
        status = self._dispatcher.ends()
        if status == 0:
            return all(stranger.ended for stranger in self._strangers)
        failed = Counter(result["status"] for result in self.scripts.results(RESULTS))
        del failed["ok"]
        self._tell(f"the dispatcher ended with {status}; {dict(failed)}")
        gave_up = self.plan.wait is not None and status in (1, 3)
        if not (gave_up or (status == 1 and failed)) or self._rounds >= ROUNDS:
            raise Wrong(f"the dispatcher ended with {status}; results not ok: {dict(failed)}")
        self._rounds += 1
        self._start_dispatcher("--retry-failed" if failed.keys() - UNFINISHED else "--resume")
        return False

    def _end(self) -> None:
        """Mend what is still broken, and drain the workers."""
        while self._timers:
            now = time.monotonic()
            self._timers = [timer for timer in self._timers if timer[3]]
            heapq.heapify(self._timers)
            self._mend(now)
            time.sleep(0.01)
        if self._broker_work is not None:
            self._broker_work.join()
        if self._broker_failed is not None:
            raise self._broker_failed
        if self._broker is not None and not self.plan.local:
            self._calls_are_gone()
        for slot in self._slots:
            if slot.alive and not slot.draining:
                assert slot.script is not None
                slot.script.says("ready on")
                self._drain(slot)
        for script in self._drained:
            status = script.ends(DRAINED)
            if status != 0 and status != 128 + signal.SIGKILL:  # killed by a fault that came later
                raise Wrong(f"{script.name} was drained, and ended with {status}")
        self._tell("workers are drained")
        self.scripts.nothing_lives()

    def _calls_are_gone(self) -> None:
        """Wait until the broker has no message: who works drops what nobody waits for any more."""
        deadline = time.monotonic() + DRAINED
        while left := {name: count for name, count in self.queues().items() if count}:
            if time.monotonic() > deadline:
                raise Wrong(f"messages stay in the broker: {left}")
            time.sleep(0.1)

    # -- the scripts

    def _lay_links(self) -> None:
        """Put a proxy on each link, and write the YAML files around them."""
        wire, plan = self._wire, self.plan
        listen = wire.free_addresses(len(plan.cores))
        common = {"transport": wire.transport, "heartbeat": HEARTBEAT, "patience": PATIENCE}
        common |= {"keep": dict([plan.keep])} if plan.keep is not None else {}
        self._slots: list[Slot] = []
        self._links: list[Proxy] = []
        for index, cores in enumerate(plan.cores):
            mine = listen[index if wire.workers_listen else 0]
            proxy = self._link(mine)
            yaml = self._write(f"worker-{index}.yml", {**common, **wire.worker(mine, proxy.address)})
            if not plan.local:
                self._slots.append(Slot(index, cores, yaml))
        reach = [proxy.address for proxy in self._links]
        if wire.broker_between:
            listen = [self._link(listen[0]).address]
        self._yaml = self._write("wire.yml", {**common, **wire.dispatcher(listen, reach)})

    def _link(self, target: str) -> Proxy:
        self._links.append(self._stack.enter_context(Proxy(target)))
        return self._links[-1]

    def _write(self, name: str, keys: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(keys))
        return path

    def _start_worker(self, slot: Slot) -> None:
        slot.count += 1
        slot.draining = False
        name = f"w{slot.index}.{slot.count}"
        slot.script = self.scripts.worker(
            "--yaml", slot.yaml, "--cores", str(slot.cores), "--no-pin", "--name", name
        )
        self._tell(f"{slot.script.name} is {name}, process {slot.script.pid}")

    def _start_dispatcher(self, how: str | None = None) -> None:
        """Start it, to begin the run or, as `how` says, to go on with it."""
        plan = self.plan
        if how is not None and plan.shuffles:
            order = random.Random(f"order of {plan.seed}, {self._incarnations}")
            self.scripts.tasks(*order.sample(self.records, len(self.records)))
        self._incarnations += 1
        options = ["--yaml", str(self._yaml), "--tasks", "tasks.jsonl", "--output", RESULTS]
        options += ["--retries", "0" if plan.impatient and how is None else "100"]
        if plan.wait is not None:
            options += ["--wait", str(plan.wait)]
        if plan.local:
            options += ["--workers", str(len(plan.cores)), "--cores", str(plan.cores[0])]
        self._dispatcher = self.scripts.dispatcher(*options, *([how] if how else []))
        self._tell(f"{self._dispatcher.name}, process {self._dispatcher.pid} {how or ''}")

    def _count(self) -> int:
        """Return how many results are recorded."""
        path = self.folder / RESULTS
        if path.exists():
            with path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # lines were taken out
                    self._results = self._offset = 0
                file.seek(self._offset)
                data = file.read()
                self._results += data.count(b"\n")
                self._offset += len(data)
        return self._results

    @property
    def ids(self) -> list[str]:
        """The ids of all tasks."""
        return [task.id for task in taskfile.read_tasks(str(self.folder / "tasks.jsonl"))]

    def queues(self, *, but_expiring: bool = False) -> dict[str, int]:
        """Return the queues of this run in the broker, each with how many messages it has.

        Those that the broker removes by itself, when nobody uses them, are left out with `but_expiring`.
        """
        assert self._broker is not None
        assert isinstance(self._wire, RabbitMQWire)
        listed = self._broker.control("list_queues", "--quiet", "--no-table-headers", "name", "arguments")
        ours = f"{self._wire.queue}."
        lines = [line for line in listed.splitlines() if line.startswith(ours)]
        names = [line.split()[0] for line in lines if not (but_expiring and "x-expires" in line)]
        counts = {name: self._wire.waiting(name.removeprefix(ours)) for name in names}
        return {name.removeprefix(ours): count for name, count in counts.items() if count is not None}

    # -- faults

    def _strike(self, fault: Fault) -> None:
        strike = {
            Kind.CHILD: self._kill_child,
            Kind.GUARDIAN: self._kill_guardian,
            Kind.WORKER: self._kill_worker,
            Kind.FREEZE: self._freeze_worker,
            Kind.DRAIN: self._drain_worker,
            Kind.DISPATCHER: self._kill_dispatcher,
            Kind.STRANGER: self._kill_dispatcher,
            Kind.INTERRUPT: self._interrupt_dispatcher,
            Kind.FREEZE_DISPATCHER: self._freeze_dispatcher,
            Kind.FULL: self._fill_disk,
            Kind.GUEST: self._invite_a_guest,
            Kind.RIVAL: self._let_a_rival_try,
            Kind.BROKER: self._down_broker,
            Kind.BROKER_STOP: self._down_broker,
            Kind.WIPE: self._down_broker,
            Kind.PURGE: self._lose_a_queue,
            Kind.DELETE: self._lose_a_queue,
        }.get(fault.kind, self._spoil_link)
        try:
            struck = strike(fault)
        except psutil.NoSuchProcess:
            struck = None
        self._tell(f"{fault.kind}: {struck or 'nothing to strike'}, {fault.span:.2f} s")
        self.struck[fault.kind] += struck is not None

    def _later(self, seconds: float, do: Callable[[], None], *, anyhow: bool = True) -> None:
        """Do something in so many seconds; unless it is needed `anyhow`, only if the run is not over then."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), do, anyhow))

    def _mend(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _of_workers(self, what: str) -> list[psutil.Process]:
        """Return the processes of this run whose command holds a word, in the order of their start."""
        found = [process for process in self.scripts.alive() if what in " ".join(process.cmdline())]
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def _worker(self, fault: Fault) -> psutil.Process | None:
        """Return a worker: the one that the fault names, else the next one that lives."""
        if self.plan.local:
            found = self._of_workers("worker.py")
            return found[fault.target % len(found)] if found else None
        slot = self._slot(fault, lambda slot: slot.alive)
        return None if slot is None or slot.script is None else psutil.Process(slot.script.pid)

    def _slot(self, fault: Fault, suits: Callable[[Slot], bool]) -> Slot | None:
        count = len(self._slots)
        order = [self._slots[(fault.target + more) % count] for more in range(count)]
        return next((slot for slot in order if suits(slot)), None)

    def _kill_child(self, fault: Fault) -> str | None:
        """Kill one that has noted a begin and no end."""
        begun = {}
        for line in self.notes():
            what, token, _ = line.split()
            begun[int(token.partition(".")[0])] = what == "begin"
        mine = {process.pid: process for process in self.scripts.alive()}
        running = [mine[pid] for pid, runs in begun.items() if runs and pid in mine]
        if not running:
            return None
        victim = running[fault.target % len(running)]
        victim.kill()
        return f"process {victim.pid}"

    def _kill_guardian(self, fault: Fault) -> str | None:
        worker = self._worker(fault)
        if worker is None:
            return None
        for child in worker.children():
            if "guardian" in " ".join(child.cmdline()):
                child.kill()
                return f"process {child.pid} of {worker.pid}"
        return None

    def _kill_worker(self, fault: Fault) -> str | None:
        if self.plan.local:
            worker = self._worker(fault)
            if worker is None:
                return None
            worker.kill()
            return f"process {worker.pid}"
        slot = self._slot(fault, lambda slot: slot.alive)
        if slot is None or slot.script is None:
            return None
        self._ends.add(slot.script.pid)
        slot.script.kill()
        self._later(fault.span, lambda: self._replace(slot), anyhow=False)
        return slot.script.name

    def _replace(self, slot: Slot) -> None:
        """Start another worker once the one that was there has ended; it may be the second to be told so."""
        if slot.alive:
            if slot.draining:
                self._later(0.05, lambda: self._replace(slot), anyhow=False)
        else:
            self._start_worker(slot)

    def _freeze_worker(self, fault: Fault) -> str | None:
        return self._freeze(self._worker(fault), fault.span)

    def _freeze(self, process: psutil.Process | None, seconds: float) -> str | None:
        if process is None:
            return None

        def thaw() -> None:
            try:
                process.resume()
            except psutil.NoSuchProcess:  # killed meanwhile
                pass

        process.suspend()
        self._later(seconds, thaw)
        return f"process {process.pid}"

    def _drain_worker(self, fault: Fault) -> str | None:
        slot = self._slot(fault, lambda slot: slot.ready)
        if slot is None:
            return None
        self._drain(slot)
        self._later(fault.span, lambda: self._replace(slot), anyhow=False)
        return self._drained[-1].name

    def _drain(self, slot: Slot) -> None:
        assert slot.script is not None
        slot.draining = True
        self._ends.add(slot.script.pid)
        self._drained.append(slot.script)
        slot.script.send(signal.SIGTERM)

    def _spoil_link(self, fault: Fault) -> str | None:
        assert fault.kind in LINK
        proxy = self._links[fault.target % len(self._links)]
        if fault.kind in (Kind.BREAK, Kind.CUT):
            proxy.cut()
        elif fault.kind is Kind.DELAY:
            proxy.latency = 0.02 + 0.03 * (fault.target % 4)
        else:
            proxy.stall(*{Kind.STALL_THERE: [THERE], Kind.STALL_BACK: [BACK]}.get(fault.kind, []))
        self._later(fault.span, proxy.heal)
        return f"link {self._links.index(proxy)}"

    def _kill_dispatcher(self, fault: Fault) -> str | None:
        if self._dispatcher is None or self._dispatcher.ended:
            return None
        self._ends.add(self._dispatcher.pid)
        self._dispatcher.kill()
        if fault.kind is Kind.STRANGER:
            self._let_a_stranger_run(fault.span)
        else:
            self._later(fault.span, lambda: self._start_dispatcher("--resume"))
        return self._dispatcher.name

    def _let_a_stranger_run(self, span: float) -> None:
        """Start another's run, and when it is over resume ours."""
        stranger = self._start_stranger()

        def resume() -> None:
            if stranger.ended:
                self._start_dispatcher("--resume")
            else:
                self._later(0.02, resume)

        self._later(span, resume)

    def _invite_a_guest(self, fault: Fault) -> str | None:
        """Let another's run share the workers, where that may be."""
        if not (self._wire.workers_listen or self._wire.broker_between):
            return None
        return self._start_stranger().name

    def _start_stranger(self) -> Script:
        """Start a run that has nothing to do with ours."""
        number = len(self._strangers)
        tasks = [
            {**record, "id": f"stranger {number}.{index}"} for index, record in enumerate(self.records[:10])
        ]
        path = self.scripts.tasks(*tasks, name=f"stranger-{number}-tasks.jsonl")
        stranger = self.scripts.dispatcher(
            "--yaml", self._yaml, "--tasks", path, "--output", f"stranger-{number}.jsonl", "--retries", "100",
            *(["--workers", "1", "--cores", "2"] if self.plan.local else []),
        )  # fmt: skip
        self._strangers.append(stranger)
        self._tell(f"{stranger.name}, process {stranger.pid}, is a stranger's")
        return stranger

    def _interrupt_dispatcher(self, fault: Fault) -> str | None:
        script = self._dispatcher
        if script is None or script.ended or script.pid in self._ends:
            return None
        self._ends.add(script.pid)
        script.send(signal.SIGTERM if fault.target % 2 else signal.SIGINT)
        if fault.target == 0:  # at once, then
            script.send(signal.SIGTERM)

        def resume() -> None:
            if script is not self._dispatcher:  # killed meanwhile, and resumed for that
                return
            if not script.ended:
                self._later(0.02, resume)
            elif script.ends() in (130, 143):
                self._start_dispatcher("--resume")
            elif script.ends() != 128 + signal.SIGKILL:  # it ended by itself at that moment
                self._ends.discard(script.pid)

        self._later(fault.span, resume)
        return script.name

    def _let_a_rival_try(self, fault: Fault) -> str | None:
        """Resume the run that is not over, and wait until that is refused."""
        if self._dispatcher is None or self._dispatcher.ended:
            return None
        rival = self.scripts.dispatcher(
            "--yaml", self._yaml, "--tasks", "tasks.jsonl", "--output", RESULTS, "--resume"
        )
        status = rival.ends()
        if status != 2 and not self._dispatcher.ended:
            raise Wrong(f"{rival.name}, a rival, ended with {status}")
        return f"{rival.name} ended with {status}"

    def _freeze_dispatcher(self, fault: Fault) -> str | None:
        if self._dispatcher is None or self._dispatcher.ended:
            return None
        return self._freeze(psutil.Process(self._dispatcher.pid), fault.span)

    def _fill_disk(self, fault: Fault) -> str | None:
        """Let no file of the dispatcher's grow beyond what its results are now, and a little."""
        path = self.folder / RESULTS
        if self._dispatcher is None or self._dispatcher.ended or not path.exists():
            return None
        pid, most = self._dispatcher.pid, path.stat().st_size + 37 * fault.target
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        def empty() -> None:
            try:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            except ProcessLookupError:  # it ended meanwhile
                pass

        self._later(fault.span, empty)
        return f"{most} bytes"

    def _down_broker(self, fault: Fault) -> str | None:
        """Take the broker down and up again, in a thread of its own: that takes seconds."""
        broker = self._broker
        if broker is None or (self._broker_work is not None and self._broker_work.is_alive()):
            return None

        def down_and_up() -> None:
            try:
                if fault.kind is Kind.WIPE:
                    for command in ("stop_app", "reset", "start_app"):
                        broker.control(command)
                else:
                    broker.kill() if fault.kind is Kind.BROKER else broker.stop()
                    self._tell("the broker is down")
                    time.sleep(fault.span)  # as long as the plan has it down
                    broker.start()
                self._tell("the broker is up")
            except BaseException as failure:
                self._broker_failed = failure

        self._broker_work = threading.Thread(target=down_and_up, daemon=True)
        self._broker_work.start()
        return "begins"

    def _lose_a_queue(self, fault: Fault) -> str | None:
        """Purge or delete a queue of calls that wait, or purge the results."""
        if self._broker is None or (self._broker_work is not None and self._broker_work.is_alive()):
            return None
        assert isinstance(self._wire, RabbitMQWire)
        names = ["1", "2", "1.first", "2.first"]
        runs = [
            line.split()[3]
            for slot in self._slots
            for line in slot.said.splitlines()
            if " serving run " in line
        ]
        if runs and fault.kind is Kind.PURGE:
            names.append(f"results.{runs[-1].rstrip(',')}")
        names = [name for name in names if self._wire.waiting(name)]
        if not names:
            return None
        name = names[fault.target % len(names)]
        waited = self._wire.waiting(name)
        with self._wire.channel() as channel:
            lose = channel.queue_purge if fault.kind is Kind.PURGE else channel.queue_delete
            lose(f"{self._wire.queue}.{name}")
        return f"{name}, with {waited} messages"

    # -- what can be read of it

    def notes(self) -> list[str]:
        """Return what the calls noted."""
        path = self.folder / chores.NOTES
        return path.read_text().splitlines() if path.exists() else []

    def strangers(self) -> list[tuple[str, list[str]]]:
        """Return the results files of strangers' runs, each with the ids of its tasks."""
        return [
            (f"stranger-{number}.jsonl", [f"stranger {number}.{index}" for index in range(10)])
            for number in range(len(self._strangers))
        ]

    def _tell(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:7.2f} s {self._results:4} results  {text}")
