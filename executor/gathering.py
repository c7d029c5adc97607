"""What a dispatcher puts together to gather a run: the file, the screen, the workers, the wire."""

from __future__ import annotations

import argparse
import gc
import shlex
from collections.abc import Sequence
from contextlib import ExitStack

from executor import keeping, resume
from executor.config import Wire
from executor.descriptors import raise_descriptor_limit
from executor.errors import EXIT_NOT_OK, EXIT_OK, ConfigError, ExecutorError, OutputFailed
from executor.gather import Gatherer, Wishes, end_with, results_stream
from executor.history import History
from executor.journal import Journal
from executor.launch import LocalWorkers
from executor.output import Mode, Target
from executor.run import Earlier, Run
from executor.screen import Screen, Summary
from executor.streams import complain
from executor.task import Task
from executor.waiting import START, Reunion
from executor.words import plural
from transports.base import DispatcherEnd, Say


def _refuse_what_they_ignore(arguments: argparse.Namespace, wire: Wire, workers: LocalWorkers) -> None:
    """Refuse an option that says where the wire is, if local workers meet elsewhere: nobody else would come.

    Raises:
        ConfigError: there is such an option.
    """
    for option, key in wire.transport.OVERRIDES.items():
        given = getattr(arguments, option, None) is not None
        if given and getattr(workers.settings, key) != getattr(wire.settings, key):
            raise ConfigError(
                f"--{option} does not go with --workers, which meet on sockets of their own; "
                "to have others, too, start each: python worker.py"
            )


def take_leave(wire: Wire, run: Run) -> None:
    """Of a run of which all is recorded, remove what those that it continues may have left with a broker.

    They were killed when the last line was written, and nobody had been told.
    """
    try:
        with wire.transport.dispatcher_end(wire.settings, say=complain, wait=None) as end:
            end.push(run)
    except ExecutorError as error:  # no matter of the results
        complain(str(error))


def gather(arguments: argparse.Namespace, wire: Wire, tasks: list[Task] | None) -> int:
    """Run tasks, or with None collect those of the run that a broker kept; return the exit status.

    Raises:
        ExecutorError: the file, the wire or the workers can't be used, or are lost.
    """
    raise_descriptor_limit()
    with ExitStack() as stack:
        target, again = None, resume.again(arguments)
        if arguments.output is not None:
            mode: Mode = "overwrite" if arguments.overwrite else "new" if again is None else "resume"
            target = stack.enter_context(Target(arguments.output, mode))
        found: resume.Survey | None = None
        earlier: Sequence[Earlier] = ()
        history, reunion = None, None
        if tasks is not None and target is not None and target.folder is not None:
            history = History(target.folder, tasks)
            stack.callback(history.close)
            if again is not None:
                found = resume.look(target, tasks, again, complain)
                before = history.before()
                earlier = before.earlier
                if len(found.recorded) == len(tasks) > 0:
                    resume.make_ready(target, tasks, found, complain)
                    if arguments.workers is None and any(each.pushed for each in earlier):
                        over = Run(tasks, earlier=earlier)
                        over.skip(found.recorded)
                        take_leave(wire, over)
                    return EXIT_OK if found.counts.get("ok") == len(tasks) else EXIT_NOT_OK
                if before.workers and arguments.workers is None:
                    patience = wire.settings.patience
                    wait = patience if arguments.wait is None else min(arguments.wait, patience)
                    reunion = Reunion(before.workers, wait)
                if before.missing:
                    complain(
                        f"{target.beside}: {', '.join(before.missing)} can't be read: "
                        "what workers still have of runs before may run again"
                    )
        out = results_stream(arguments.output)
        summary = Summary(0)
        screen = Screen(
            summary, out if arguments.output != "-" or arguments.verbose else None, quiet=arguments.quiet
        )
        stack.callback(screen.close)
        settings, workers = wire.settings, None
        if arguments.workers is not None:
            workers = LocalWorkers(arguments.workers, arguments.cores, wire, say=screen.say)
            stack.callback(workers.close)
            _refuse_what_they_ignore(arguments, wire, workers)
            end_with(workers.close)
            workers.open()
            settings = workers.settings
        wishes = Wishes(
            arguments.wait, arguments.max_failures, arguments.output is not None and not arguments.verbose,
            _start(arguments),
        )  # fmt: skip
        end: DispatcherEnd
        if tasks is None:
            kept = wire.transport.kept_run(settings, arguments.collect, collects=True, say=screen.say)
            end = stack.enter_context(kept)
            run = keeping.open_kept(kept, arguments.collect, wait=arguments.wait)
            if target is not None and again is not None:
                found = resume.look(target, run.tasks, (), screen.say, to="collect")
                run.skip(found.recorded)
            had = 0 if found is None else len(found.recorded)
            if other := len(run.tasks) - run.unrecorded - had:
                where = "elsewhere" if had else "before"
                told = f"{plural(other, 'result')} collected {where}, {run.unrecorded:,} to come"
                screen.say(f"of run {run.name}, {told}")
            past = _begin(target, run.tasks, found, screen.say)
        else:
            end = wire.transport.dispatcher_end(settings, say=screen.say, wait=arguments.wait)
            if history is not None:
                # After the end has said goodbye to all, so that nobody keeps anything.
                stack.callback(lambda: None if end.resumable else history.end())
            stack.enter_context(end)
            past = _begin(target, tasks, found, screen.say)
            run = Run(
                tasks, retries=arguments.retries, timeout=arguments.timeout,
                earlier=earlier, superseded=past.superseded, again=past.again,
            )  # fmt: skip
            if history is not None:
                history.begin(run.id)
        run.skip(past.recorded)
        journal = None
        if target is not None:
            journal = Journal(target)
            stack.callback(journal.close)
        summary.total, summary.before = run.unrecorded, past.counts
        if tasks is None:
            collector = keeping.Collector(run, end, screen, summary, journal, workers, wishes)
            collector.had = past.recorded
            gatherer: Gatherer = collector
        else:
            gatherer = Gatherer(run, end, screen, summary, journal, workers, wishes, history, reunion)
        gc.freeze()  # the tasks stay: collections need not walk a million of them to find nothing
        try:
            status = gatherer.gather()
        finally:
            screen.summarise(gatherer.wall, out)
            if target is not None and history is not None and gatherer.unfinished:
                rest = f"{gatherer.unfinished:,} of {plural(len(run.tasks), 'task')} unfinished"
                screen.say(f"{target.name}: {rest}; --resume goes on with them")
        if status == EXIT_OK and screen.unwritten and journal is None:
            raise OutputFailed(screen.unwritten)
        return status


def _start(arguments: argparse.Namespace) -> str:
    """Return how one starts a worker for a dispatcher with this command line."""
    words = [START]
    if arguments.yaml is not None:
        words.append(f"--yaml {shlex.quote(arguments.yaml)}")
    # Which one, the line says already; on this side it may be another (tcp://*), or hold a password.
    if arguments.address is not None:
        words.append("--address ...")
    if arguments.connect is not None:
        words.append("--listen ...")
    return " ".join(words)


def _begin(
    target: Target | None, tasks: Sequence[Task], found: resume.Survey | None, say: Say
) -> resume.Past:
    """Change the results file, which is as it was until the wire is open: what can't begin loses nothing."""
    if target is None:
        return resume.Past()
    if found is None:
        target.begin()
        return resume.Past()
    return resume.make_ready(target, tasks, found, say)
