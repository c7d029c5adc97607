"""What a dispatcher puts together to gather a run: the file, the screen, the workers, the wire."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from executor import keeping, resume
from executor.config import Wire
from executor.descriptors import raise_descriptor_limit
from executor.errors import EXIT_NOT_OK, EXIT_OK, ExecutorError, OutputFailed
from executor.gather import Gatherer, Wishes, end_with, results_stream
from executor.history import History
from executor.journal import Journal
from executor.launch import LocalWorkers
from executor.output import Mode, Target
from executor.run import Run
from executor.screen import Screen, Summary
from executor.streams import complain
from executor.task import Task
from executor.waiting import Reunion
from transports.base import DispatcherEnd


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
        past, history, reunion = resume.Past(), None, None
        if tasks is not None and target is not None and target.folder is not None:
            history = History(target.folder, tasks)
            stack.callback(history.close)
            if again is not None:
                past = resume.resume(target, tasks, again, complain)
                if len(past.recorded) == len(tasks) > 0:
                    earlier = history.before().earlier
                    if arguments.workers is None and any(each.pushed for each in earlier):
                        over = Run(tasks, earlier=earlier)
                        over.skip(past.recorded)
                        take_leave(wire, over)
                    return EXIT_OK if past.counts.get("ok") == len(tasks) else EXIT_NOT_OK
                before = history.before()
                past = past._replace(earlier=before.earlier)
                if before.workers and arguments.workers is None:
                    patience = wire.settings.patience
                    wait = patience if arguments.wait is None else min(arguments.wait, patience)
                    reunion = Reunion(before.workers, wait)
                if before.missing:
                    complain(
                        f"{target.name}.d: {', '.join(before.missing)} can't be read: "
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
            end_with(workers.close)
            workers.open()
            settings = workers.settings
        wishes = Wishes(
            arguments.wait, arguments.max_failures, arguments.output is not None and not arguments.verbose
        )
        end: DispatcherEnd
        if tasks is None:
            kept = wire.transport.kept_run(settings, arguments.collect, collects=True, say=screen.say)
            end = stack.enter_context(kept)
            run = keeping.open_kept(kept, arguments.collect, wait=arguments.wait, say=screen.say)
            if target is not None and again is not None:
                past = resume.resume(target, run.tasks, (), screen.say, to="collect")
        else:
            run = Run(
                tasks, retries=arguments.retries, timeout=arguments.timeout,
                earlier=past.earlier, superseded=past.superseded, again=past.again,
            )  # fmt: skip
            end = wire.transport.dispatcher_end(settings, say=screen.say, wait=arguments.wait)
            if history is not None:
                history.begin(run.id)
                # After the end has said goodbye to all, so that nobody keeps anything.
                stack.callback(lambda: None if end.resumable else history.end())
            stack.enter_context(end)
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
        try:
            status = gatherer.gather()
        finally:
            screen.summarise(gatherer.wall, out)
        if status == EXIT_OK and screen.unwritten and journal is None:
            raise OutputFailed(screen.unwritten)
        return status
