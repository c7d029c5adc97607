"""The scripts around one RabbitMQ, for runs that it keeps: to leave, collect, cancel and watch them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from executor import manifest
from executor.errors import ConfigError
from executor.messages import Reports, decode
from tests.contract.ends import Place
from tests.contract.wires import RabbitMQ
from tests.e2e.scripts import Script, Scripts, task, wait_until
from transports.rabbitmq.frames import unpack

NAME = "night-7"


class Runs:
    """The scripts around one broker, each of them in a folder with a YAML file."""

    def __init__(self, scripts: Scripts, wire: RabbitMQ, **more: Any) -> None:
        self.scripts = scripts
        self.folder = scripts.folder
        self.wire = wire
        self.place = Place(wire, **{"heartbeat": 0.3, "patience": 1.5, **more})
        self.yaml = self.write("rabbitmq.yml")
        self.id = ""  # of the run that was left last

    def write(self, name: str) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(self.place.dispatcher()))
        return path

    def dispatcher(self, *arguments: str | Path, **options: Any) -> Script:
        return self.scripts.dispatcher("--yaml", self.yaml, *arguments, **options)

    def run(self, *arguments: str | Path, status: int = 0, **options: Any) -> Script:
        return self.scripts.run("--yaml", self.yaml, *arguments, status=status, **options)

    def detach(self, *records: dict[str, Any], name: str = NAME, status: int = 0) -> Script:
        left = self.run("--tasks", self.scripts.tasks(*records), "--detach", "--run", name, status=status)
        if status == 0:
            self.id = self.find_id()
        return left

    def collect(self, *arguments: str | Path, output: str = "results.jsonl", status: int = 0) -> Script:
        return self.run("--collect", NAME, "--output", output, *arguments, status=status)

    def collector(self, output: str) -> Script:
        return self.dispatcher("--collect", NAME, "--output", output)

    def worker(self, cores: int = 1, *arguments: str) -> Script:
        worker = self.scripts.worker("--yaml", self.yaml, "--cores", str(cores), "--no-pin", *arguments)
        worker.says("ready on")
        return worker

    def drain(self, worker: Script) -> None:
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0

    def recorded(self, output: str) -> list[str]:
        """The ids in a file of results so far."""
        path = self.folder / output
        return [result["id"] for result in self.scripts.results(output)] if path.exists() else []

    def runs(self, name: str) -> Path:
        """Wait until a `jobs.hold` of that name runs; return the file that lets it go on."""
        wait_until((self.folder / f"{name}.runs").exists, f"{name} runs")
        return self.folder / f"{name}.go"

    def waiting(self, queue: str) -> int | None:
        """How many messages wait in a queue of ours; None if there is none of that name."""
        return self.wire.waiting(queue)

    def noted(self) -> set[int]:
        """The places of the results of which the broker knows that they were collected.

        Not to be asked while a collector begins: what is read here is not there for it.
        """
        with self.wire.channel() as channel:
            queue, bodies = f"manifest.{NAME}", []
            while (got := channel.basic_get(f"{self.wire.queue}.{queue}"))[0] is not None:
                bodies.append(self.wire.opened(queue, got))
        try:
            return set(manifest.read(NAME, bodies).collected)
        except ConfigError:  # not all is back that was read here a moment ago
            return set()

    def find_id(self) -> str:
        """The id of the run of our name."""
        with self.wire.channel() as channel:
            _, properties, _ = channel.basic_get(f"{self.wire.queue}.manifest.{NAME}")
            return str(properties.headers["run"])

    def results(self) -> int | None:
        """How many reports of the run that was left wait; those that came together are in one message."""
        messages = self.waiting(f"results.{self.id}")
        return len(self.reported()) if messages else messages

    def reported(self) -> list[int]:
        """The places of the tasks whose reports wait."""
        queue, places = f"results.{self.id}", list[int]()
        with self.wire.channel() as channel:  # whose end gives all back
            while (got := channel.basic_get(f"{self.wire.queue}.{queue}"))[0] is not None:
                message, _ = decode(unpack(self.wire.opened(queue, got)))
                assert isinstance(message, Reports)
                places += [report.place for report in message.items]
        return places

    def nothing_is_left(self) -> None:
        """Wait until nothing is: what belongs to a connection goes a moment after that."""
        for queue in (f"results.{self.id}", f"manifest.{NAME}", f"claim.{NAME}"):
            wait_until(lambda queue=queue: self.waiting(queue) is None, f"{queue} is gone")  # type: ignore[misc]

    def no_call_waits(self, widths: tuple[int, ...] = (1,)) -> None:
        """Wait until nobody has a call, nor will have one."""
        queues = [f"{width}{kind}" for width in widths for kind in ("", ".first", ".alone")]
        wait_until(lambda: not any(self.waiting(queue) for queue in [*queues, "returned"]), "no call waits")

    def never_again(self, worker: Script, begun: int) -> None:
        """See that no `jobs.hold` begins on a worker beyond those that have, and that other runs do."""
        for number in range(20):
            (self.folder / f"held-{number}.go").touch()
        self.no_call_waits()
        tasks = self.scripts.tasks(*echoes(3), name="next.jsonl")
        self.run("--tasks", tasks, "--output", "next-results.jsonl")
        assert sorted(result["value"] for result in self.scripts.results("next-results.jsonl")) == [0, 1, 2]
        assert len(list(self.folder.glob("held-*.runs"))) == begun
        self.drain(worker)
        self.no_call_waits()  # nor did it put anything back

    def expire(self, worker: Script) -> None:
        """Remove the results queue of a worker's run, as the broker does when its dispatcher is long gone."""
        run = worker.says("serving run").rpartition(" ")[2]
        with self.wire.channel() as channel:
            channel.queue_delete(f"{self.wire.queue}.results.{run}")


def echoes(count: int) -> list[dict[str, Any]]:
    return [task("jobs.echo", number, id=str(number)) for number in range(count)]


def holds(count: int) -> list[dict[str, Any]]:
    return [task("jobs.hold", f"held-{number}", id=str(number)) for number in range(count)]


def one_line(script: Script) -> str:
    (line,) = script.stderr.splitlines()
    assert script.stdout == ""
    return line
