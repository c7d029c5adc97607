#!/usr/bin/env python3
"""Sort tasks by the cores they ask for, push them to workers, and gather the results."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # all other imports come when Ctrl-C is no traceback any more, see the end
if TYPE_CHECKING:
    import argparse

    from executor.task import Task

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

#: Options that say nothing where a run is left with a broker, collected from it, or cancelled there.
_RUN = ["tasks", "order", "dry-run", "timeout", "retries"]
_EXISTING = ["resume", "retry-failed", "overwrite"]
_RESULTS = ["max-failures", "output", *_EXISTING, "verbose", "quiet"]
NOT_WITH = {
    "detach": [*_RESULTS, "workers", "dry-run", "collect", "cancel"],
    "collect": [*_RUN, "max-failures", "retry-failed", "workers", "cancel"],
    "cancel": [*_RUN, *_RESULTS, "workers"],
}

EPILOG = """\
task files:
  .yaml .yml .json   a list of tasks, or a mapping with the one key `tasks`
  .jsonl, or -       one JSON object per line (- reads stdin)
  .csv               a header of names: function, resources, params (a JSON
                     list), ...; a column kwargs.NAME is one keyword argument

exit status:
  0  every result is ok              3  no worker came within --wait
  1  some result is not ok,        130  Ctrl-C
     or can't be written           143  SIGTERM
  2  command line, file, or YAML
     is wrong
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
        "--order", choices=sorted(ORDERS),
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
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true",
        help="go on with an output file: run what it has no line of, or one that is cancelled or lost",
    )  # fmt: skip
    existing.add_argument(
        "--retry-failed", action="store_true", help="likewise, and run again all that is not ok in it"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="replace an output file that holds something"
    )
    group.add_argument("--verbose", action="store_true", help="with --output: print results that are ok, too")
    group.add_argument(
        "--quiet", action="store_true", help="neither progress nor result lines; the summary stays"
    )
    group = parse.add_argument_group("workers")
    group.add_argument(
        "--workers", type=options.positive_int, metavar="N", help="start N workers here, for this run alone"
    )
    group.add_argument(
        "--cores", type=options.core_count, metavar="K",
        help="with --workers: cores of each (default: they divide what there is)",
    )  # fmt: skip
    options.add_wait(
        group,
        "end with status 3 when no worker is there for so long (default: wait for ever), and reject "
        "tasks that are too wide for all workers so long after the rest (default: 30); a full disk, too, is "
        "waited for so long (default: 30)",
    )
    group = parse.add_argument_group("runs that a broker keeps (rabbitmq)")
    group.add_argument("--detach", action="store_true", help="push the tasks, print the run's name, and end")
    group.add_argument("--run", metavar="NAME", help="with --detach: the run's name (default: a new one)")
    group.add_argument(
        "--collect", metavar="NAME",
        help="gather the results of such a run, from any machine; Ctrl-C leaves the rest with the broker, "
        "and so does --wait after so long without a result",
    )  # fmt: skip
    group.add_argument("--cancel", metavar="NAME", help="stop such a run and remove it")
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
    for option in _EXISTING:
        if getattr(arguments, option.replace("-", "_")) and arguments.output in (None, "-"):
            parse.error(f"--{option} goes with --output FILE")
    if arguments.tasks and arguments.output and same_file(arguments.tasks, arguments.output):
        parse.error("--output and --tasks are one file: its tasks would be lost")
    check_kept(parse, arguments)

    from executor import config

    wire = config.read(arguments.yaml, address=arguments.address, connect=arguments.connect)
    if arguments.cancel is not None:
        from executor import keeping

        return keeping.cancel(arguments.cancel, wire, wait=arguments.wait, say=streams.complain)
    if arguments.collect is not None:
        from executor.gathering import gather

        return gather(arguments, wire, None)

    from executor import taskfile
    from executor.ordering import order

    path = arguments.tasks
    if path == "-" and sys.stdin.isatty():
        streams.complain("reading tasks from this terminal, one JSON object per line; Ctrl-D ends them")
    tasks = taskfile.check_tasks(TASKS, "TASKS") if path is None else taskfile.read_tasks(path)
    tasks = order(tasks, arguments.order or "cores")
    if arguments.dry_run:
        return show(arguments, tasks)
    if arguments.detach:
        from executor import keeping
        from executor.run import Run

        name = keeping.new_name() if arguments.run is None else arguments.run
        run = Run(tasks, retries=arguments.retries, timeout=arguments.timeout, name=name)
        return keeping.detach(run, wire, wait=arguments.wait, say=streams.complain)

    from executor.gathering import gather

    return gather(arguments, wire, tasks)


def show(arguments: argparse.Namespace, tasks: list[Task]) -> int:
    """Show what would run, and in which order; change nothing. Return the exit status."""
    from executor import resume
    from executor.screen import show_order

    again = resume.again(arguments)
    if again is not None:
        tasks = resume.left(arguments.output, tasks, again, streams.complain)
    if tasks or again is None:
        show_order(tasks, sys.stdout)
    return 0


def same_file(one: str, other: str) -> bool:
    """Tell whether two paths lead to the same file."""
    from pathlib import Path

    try:
        return Path(one).samefile(other)
    except OSError:  # one of them is none yet
        return False


def check_kept(parse: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that make no sense with those of runs that a broker keeps."""
    if arguments.run is not None and not arguments.detach:
        parse.error("--run goes with --detach")
    for option in ("detach", "collect", "cancel"):
        if getattr(arguments, option) in (None, False):
            continue
        for other in NOT_WITH[option]:
            if getattr(arguments, other.replace("-", "_")) not in (None, False):
                parse.error(f"--{other} does not go with --{option}")


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
