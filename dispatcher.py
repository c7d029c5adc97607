#!/usr/bin/env python3
"""Sort tasks by the cores they ask for, push them to workers, and gather the results."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # all other imports come when Ctrl-C is no traceback any more, see the end
if TYPE_CHECKING:
    import argparse

#: What runs without --tasks: edit it. Each task is a call of a function by its full import path; all keys but
#: `function` may be left out: params, kwargs, resources (cores, 1), id, timeout (seconds), retries, memory.
TASKS = [
    {"function": "example_compute.compute_flops", "params": [1, 2048], "resources": 1},
    {"function": "example_compute.compute_flops", "params": [1, 2048], "resources": 2},
    {"function": "example_compute.estimate_pi", "params": [2_000_000], "kwargs": {"seed": 1}},
    {"function": "example_compute.estimate_pi", "params": [2_000_000], "kwargs": {"seed": 2}},
    {"function": "example_compute.spectrum", "params": [256], "resources": 1},
    {"function": "example_compute.sleep", "params": [0.2], "resources": 2},
    {"function": "math.factorial", "params": [30]},
    {"function": "os.path.join", "params": ["results", "run-1"]},
]

EPILOG = """\
task files:
  .yaml .yml .json   a list of tasks, or a mapping with the one key `tasks`
  .jsonl, or -       one JSON object per line (- reads stdin)
  .csv               a header of names: function, resources, params (a JSON
                     list), ...; a column kwargs.NAME is one keyword argument

exit status:
  0  every result is ok              3  no worker came within --wait
  1  some result is not ok         130  Ctrl-C
  2  command line, file, or YAML   143  SIGTERM
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    from executor import options
    from executor.ordering import ORDERS

    parse = options.parser("dispatcher.py", __doc__ or "", EPILOG)
    group = parse.add_argument_group("tasks")
    group.add_argument(
        "--tasks", metavar="FILE", help="read tasks from a file (default: the TASKS in dispatcher.py)"
    )
    group.add_argument(
        "--order", choices=sorted(ORDERS), default="cores",
        help="hand out by increasing cores (default), by decreasing ones, or as in the file",
    )  # fmt: skip
    group.add_argument("--dry-run", action="store_true", help="show the order and run nothing")
    group.add_argument(
        "--timeout",
        type=options.positive_seconds,
        metavar="SECONDS",
        help="for tasks that have none of their own",
    )
    group.add_argument(
        "--retries", type=options.count, metavar="N",
        help="more attempts after error, crashed or lost, for tasks that have none of their own "
        "(default: 2 after crashed and lost, none after error)",
    )  # fmt: skip
    group.add_argument(
        "--max-failures",
        type=options.positive_int,
        metavar="N",
        help="hand out no more after N results not ok",
    )
    group = parse.add_argument_group("results")
    group.add_argument(
        "--output", metavar="FILE", help="write results as JSON Lines, each as it arrives; - is stdout"
    )
    group.add_argument("--overwrite", action="store_true", help="replace an output file that holds something")
    group.add_argument("--verbose", action="store_true", help="with --output: print results that are ok, too")
    group.add_argument(
        "--quiet", action="store_true", help="neither progress nor result lines; the summary stays"
    )
    group = parse.add_argument_group("workers")
    group.add_argument(
        "--workers", type=options.positive_int, metavar="N", help="start N workers here, for this run alone"
    )
    group.add_argument(
        "--cores", type=options.positive_int, metavar="K",
        help="with --workers: cores of each (default: they divide what there is)",
    )  # fmt: skip
    options.add_wait(
        group,
        "end with status 3 when no worker is there for so long (default: wait for ever), and reject "
        "tasks that are too wide for all workers so long after the rest (default: 30)",
    )
    options.add_wire(parse).add_argument(
        "--connect", metavar="HOST:PORT,...",
        help="with grpc and rpyc: the workers, in place of the file's list; or unix:/path",
    )  # fmt: skip
    return parse


def main() -> int:
    """Run the dispatcher; return the exit status."""
    parse = parser()
    arguments = parse.parse_args()
    if arguments.cores is not None and arguments.workers is None:
        parse.error("--cores goes with --workers; a worker.py of its own has its own --cores")
    if arguments.overwrite and arguments.output in (None, "-"):
        parse.error("--overwrite goes with --output FILE")

    from executor import config, taskfile
    from executor.ordering import order
    from executor.screen import show_order

    wire = config.read(arguments.yaml, address=arguments.address, connect=arguments.connect)
    tasks = taskfile.read_tasks(arguments.tasks) if arguments.tasks else taskfile.check_tasks(TASKS, "TASKS")
    tasks = order(tasks, arguments.order)
    if arguments.dry_run:
        show_order(tasks, sys.stdout)
        return 0

    from contextlib import ExitStack

    from executor.errors import EXIT_OK, OutputFailed
    from executor.gather import Gatherer, Wishes, results_stream
    from executor.journal import Journal
    from executor.launch import LocalWorkers
    from executor.run import Run
    from executor.screen import Screen, Summary

    with ExitStack() as stack:
        journal = None
        if arguments.output is not None:
            journal = Journal(arguments.output, overwrite=arguments.overwrite)
            stack.callback(journal.close)
        out = results_stream(arguments.output)
        summary = Summary(len(tasks))
        screen = Screen(
            summary, out if arguments.output != "-" or arguments.verbose else None, quiet=arguments.quiet
        )
        stack.callback(screen.close)
        settings, workers = wire.settings, None
        if arguments.workers is not None:
            workers = LocalWorkers(arguments.workers, arguments.cores, wire, say=screen.say)
            stack.callback(workers.close)
            settings = workers.settings
        end = stack.enter_context(
            wire.transport.dispatcher_end(settings, say=screen.say, wait=arguments.wait)
        )
        wishes = Wishes(
            arguments.wait, arguments.max_failures, arguments.output is not None and not arguments.verbose
        )
        run = Run(tasks, retries=arguments.retries, timeout=arguments.timeout)
        gatherer = Gatherer(run, end, screen, summary, journal, workers, wishes)
        try:
            status = gatherer.gather()
        finally:
            screen.summarise(gatherer.wall, out)
        if status == EXIT_OK and screen.unwritten and journal is None:
            raise OutputFailed(screen.unwritten)
        return status


if __name__ == "__main__":
    # Until a run is there to be cancelled they end us at once. Said, as a shell has Ctrl-C ignored in what it
    # starts in the background, and Python would turn it into a traceback anywhere in an import.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)

    from executor import streams
    from executor.errors import EXIT_USAGE, ExecutorError

    try:
        streams.prepare()
        sys.exit(main())
    except ImportError as error:  # of a package of ours; what tasks import is their affair
        streams.complain(f"dispatcher.py: error: {error}; {streams.INSTALL}")
        sys.exit(EXIT_USAGE)
    except ExecutorError as error:
        streams.complain(f"dispatcher.py: error: {error}")
        sys.exit(error.exit_status)
