"""What the command lines of dispatcher.py and worker.py have in common."""

from __future__ import annotations

import argparse
import difflib
import math
import textwrap
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from executor import __version__
from executor.errors import EXIT_USAGE

if TYPE_CHECKING:
    Group: TypeAlias = argparse._ArgumentGroup  # which has no public name


#: Cores of one worker: beyond any machine, also where each is a slot for tasks that only wait.
MOST_CORES = 1_000_000


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage that would push it out of sight."""

    def error(self, message: str) -> NoReturn:
        start, colon, rest = message.partition("unrecognized arguments: ")
        if colon and not start:
            word, known = rest.split()[0].partition("=")[0], self._option_string_actions
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
            message += f"; did you mean {near[0]}?" if near else "; --help lists the options"
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return an empty parser with ``--help`` and ``--version``."""
    parse = _Parser(
        prog=name,
        description=textwrap.fill(description, 78),  # the formatter leaves both as they are
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parse.add_argument("--version", action="version", version=f"{name} {__version__}")
    return parse


def add_wire(parse: argparse.ArgumentParser) -> Group:
    """Add the options that choose the wire; return their group, for those of one script alone."""
    group = parse.add_argument_group("wire")
    group.add_argument(
        "--yaml", "--yamll", metavar="FILE", dest="yaml",
        help="the wire and its settings, such as zmq.yml (default: ZeroMQ on a unix socket of this user)",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="ADDRESS",
        help="in place of the file's, with zmq: tcp://host:port or unix:/path; with rabbitmq: its url",
    )  # fmt: skip
    return group


def add_wait(group: Group, text: str) -> None:
    """Add ``--wait``."""
    group.add_argument("--wait", type=seconds, metavar="SECONDS", help=text)


def positive_int(text: str) -> int:
    """Read an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return value


def core_count(text: str) -> int:
    """Read an integer of at least 1 and at most `MOST_CORES`."""
    value = positive_int(text)
    if value > MOST_CORES:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_CORES:,}, not {text!r}")
    return value


def name(text: str) -> str:
    """Read a name that people see."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be printable text, not {text!r}")
    return text


def count(text: str) -> int:
    """Read an integer of at least 0."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, not {text!r}")
    return value


def seconds(text: str) -> float:
    """Read a finite number of seconds, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}")
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0 seconds, not {text!r}")
    return value


def positive_seconds(text: str) -> float:
    """Read a finite number of seconds, more than 0."""
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return value
