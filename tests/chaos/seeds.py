"""One seed on one wire: its plan is played, and everything looked at that is promised."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import records
from tests.chaos.plan import RESUMED, Kind, plan
from tests.chaos.stage import RESULTS, Stage
from tests.contract.rabbit import RabbitMQ
from tests.contract.wires import WIRES, Wire
from tests.contract.wires import RabbitMQ as RabbitMQWire
from tests.e2e.scripts import Scripts

#: The wires by name; of the last one each run makes its own, for its broker.
NAMES = [*(wire.transport for wire in WIRES), RabbitMQWire.transport]


@dataclass
class Outcome:
    """What became of a seed: what is `wrong`, and for people its `story`, plan and logs."""

    seed: int
    wire: str
    wrong: list[str] = field(default_factory=list)
    story: str = ""
    struck: Counter[Kind] = field(default_factory=Counter)
    tasks: int = 0
    begun: int = 0
    seconds: float = 0.0

    @property
    def again(self) -> str:
        """The command that runs it again."""
        return f"make chaos FIRST={self.seed} SEEDS=1 ARGS='--wire {self.wire}'"


def run(seed: int, name: str, broker: RabbitMQ | None = None) -> Outcome:
    """Play a seed on the wire of that name, with a `broker` where it needs one."""
    wire: Wire
    if broker is None:
        wire = next(each for each in WIRES if each.transport == name)
    else:
        wire = RabbitMQWire(broker.url)
    outcome = Outcome(seed, name)
    planned = plan(seed, broker=wire.broker_between)
    lines = [f"seed {seed} on {name}: {outcome.again}", str(planned)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fe-chaos-") as folder:
        scripts = Scripts(Path(folder))
        logs: list[str] = []
        scripts.show = logs.append
        try:
            with Stage(planned, wire, scripts, broker) as stage:
                try:
                    stage.play()
                    outcome.wrong += look(stage, broker)
                finally:
                    lines += stage.story
                    outcome.struck, outcome.tasks = stage.struck, planned.tasks
                    outcome.begun = sum(line.startswith("begin") for line in stage.notes())
        except Exception as error:
            outcome.wrong.append("".join(traceback.format_exception(error)))
        finally:
            try:
                scripts.close()
            except AssertionError as error:
                outcome.wrong.append(str(error))
    outcome.seconds = time.monotonic() - began
    if outcome.wrong:
        lines += [*logs, *(["--- the broker's log", broker.log()[-20_000:]] if broker else [])]
        lines += ["--- what is wrong", *outcome.wrong, outcome.again]
    outcome.story = "\n".join(lines)
    return outcome


def look(stage: Stage, broker: RabbitMQ | None) -> list[str]:
    """Return what is wrong after a run that has ended."""
    scripts, folder, notes = stage.scripts, stage.folder, stage.notes()
    results = scripts.results(RESULTS)
    wrong = records.mistakes(stage.ids, results, notes, folder)
    size = (folder / RESULTS).stat().st_size
    if size and not (folder / RESULTS).read_bytes().endswith(b"\n"):
        wrong.append("the results end in a torn line")
    superseded = folder / f"{RESULTS}.d" / "superseded.jsonl"
    if superseded.exists():
        recorded = {result["id"] for result in results}
        lines = scripts.results(f"{RESULTS}.d/superseded.jsonl")
        for line in lines:
            if line["id"] not in recorded or line["status"] == "ok":
                wrong.append(f"superseded, {line['status']}: {line['id']}")
        if len({(line["id"], line["started"], line["finished"]) for line in lines}) < len(lines):
            wrong.append("a line was superseded twice")
    for name, ids in stage.strangers():
        wrong += records.mistakes(ids, scripts.results(name), notes, folder)
    for script in scripts.started:
        if "Traceback" in script.stderr:
            wrong.append(f"{script.name} ends in a traceback")
    if broker is not None:
        # Those of --workers go with their dispatcher; when it is killed, the broker removes them by itself.
        killed = any(stage.struck[kind] for kind in RESUMED)
        for queue, messages in stage.queues(but_expiring=stage.plan.local and killed).items():
            if messages or queue.startswith(("results.", "manifest.", "claim.")):
                wrong.append(f"{queue} is left, with {messages} messages")
    return wrong
