#!/usr/bin/env python3
"""Pull tasks, run each on the cores it asks for, and send the results back."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # all other imports come when Ctrl-C is no traceback any more, see the end
if TYPE_CHECKING:
    import argparse

EPILOG = """\
exit status:
  0    drained: the first Ctrl-C, SIGTERM, or --once; what ran was finished
  2    the command line or the YAML file is wrong
  3    no dispatcher came within --wait
  130  killed by a second signal
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    import argparse

    from executor import options

    parse = options.parser("worker.py", __doc__ or "", EPILOG)
    parse.add_argument(
        "--cores", type=options.core_count, metavar="K",
        help="cores to run tasks on (default: what the machine, its cgroup and Slurm grant; "
        "more are allowed, then nothing is pinned)",
    )  # fmt: skip
    parse.add_argument(
        "--no-pin", action="store_true", help="leave the choice of cores to the operating system"
    )
    parse.add_argument(
        "--backfill", action="store_true",
        help="let later, narrower tasks start while a wide one waits for its cores, for 10 s at most",
    )  # fmt: skip
    parse.add_argument("--once", action="store_true", help="end with the first dispatcher's run")
    parse.add_argument(
        "--name", type=options.name, help="name in results (default: host name and process id)"
    )
    parse.add_argument(
        "--grace", type=options.seconds, default=0.5, metavar="SECONDS",
        help="time between SIGTERM and SIGKILL for a task that must end (default: 0.5)",
    )  # fmt: skip
    group = options.add_wire(parse)
    group.add_argument(
        "--listen", metavar="HOST:PORT", help="in place of the file's, with grpc and rpyc; or unix:/path"
    )
    options.add_wait(
        group, "end with status 3 when no dispatcher is there for so long (default: wait for ever)"
    )
    parse.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)  # set by dispatcher.py --workers
    return parse


def main() -> int:
    """Run the worker; return the exit status."""
    arguments = parser().parse_args()

    from executor import beginning
    from executor.descriptors import raise_descriptor_limit

    raise_descriptor_limit()
    begun = beginning.fork()  # before a wire or keys are loaded

    import os
    import socket

    from executor import config, cores
    from executor.messages import introduce
    from executor.neighbours import Presence, remark
    from executor.pool import Pool
    from executor.words import plural
    from executor.work import Worker, speaker

    name = arguments.name or f"{socket.gethostname()}-{os.getpid()}"
    say = speaker(name)
    wire = config.read(arguments.yaml, address=arguments.address, listen=arguments.listen)
    chosen, warning = cores.choose(arguments.cores, pin=not arguments.no_pin)
    used = chosen.ids if chosen.pinned else cores.granted().ids
    presence = Presence(name, used)
    try:
        introduction = introduce(name, len(chosen), backfill=arguments.backfill)
        allow = wire.settings.allow
        with wire.transport.worker_end(wire.settings, introduction, say=say) as end:
            pool = Pool(
                chosen, grace=arguments.grace, backfill=arguments.backfill, allow=allow, linger=end.linger,
                begun=begun,
            )  # fmt: skip
            worker = Worker(
                end, pool,
                say=say if arguments.lifeline is None else _silent, once=arguments.once,
                wait=arguments.wait, lifeline=arguments.lifeline,
            )  # fmt: skip
            if arguments.lifeline is None:
                slots = plural(len(chosen), "slot")
                where = cores.named(chosen.ids) if chosen.pinned else f"{slots}, not pinned"
                say(f"ready on {where}; looks for a dispatcher at {end.address}")
                for line in (warning, remark(presence.overlapping(), used)):
                    if line:
                        say(line)
            return worker.run()
    finally:
        presence.close()


def _silent(text: str) -> None:
    """Say nothing: the dispatcher that started this worker speaks for it."""


if __name__ == "__main__":
    # Until there is something to drain they end us at once. Said, as a shell has Ctrl-C ignored in what it
    # starts in the background, and Python would turn it into a traceback anywhere in an import.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)

    from executor import streams
    from executor.errors import EXIT_USAGE, ExecutorError

    try:
        streams.prepare()
        sys.exit(main())
    except ImportError as error:  # of a package of ours; what tasks import is their affair
        streams.complain(f"worker.py: error: {error}; {streams.INSTALL}")
        sys.exit(EXIT_USAGE)
    except ExecutorError as error:
        streams.complain(f"worker.py: error: {error}")
        sys.exit(error.exit_status)
