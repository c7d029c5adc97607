"""One call of one function, here and now: ``executor_cli.py --function min --params 1 2`` prints 1.

It starts at once: the arguments are read by hand, as argparse alone takes half as long to import as
Python takes to start (and would take ``-1e-5`` for an option).
"""

from __future__ import annotations

import os
import sys

from executor.call import describe, function_executor, make_importable, set_argument
from executor.errors import EXIT_INTERRUPTED, EXIT_NOT_OK, EXIT_OK, UsageError

TYPE_CHECKING = False  # typing's own constant would cost its import
if TYPE_CHECKING:
    from collections.abc import Callable

HELP = """\
usage: executor_cli.py --function NAME [--params VALUE ...]
                       [--kwargs NAME=VALUE ...] [--json]

Call one function, here and now, and print what it returns.

options:
  --function NAME   a built-in (min, str.upper) or the full import path of a
                    function, method or class (numpy.linalg.norm); modules in
                    the current folder can be imported, aliases (np) are not
                    known
  --params VALUE ...
                    the positional arguments; none without this option
  --kwargs NAME=VALUE ...
                    the keyword arguments
  --json            print the value as JSON, arrays as lists; what JSON lacks
                    is an object such as {"$float": "nan"}
  --version         print the version
  -h, --help        print this text

values:
  A value is a Python or JSON literal where it reads as one: -1e-5, [1,2],
  {"a": 1}, (1,2), true, None, inf, 1+2j, "text". All else is a string as it
  stands, and nothing is evaluated. [1, 2] that the shell split at the space
  is put together again. To pass a string that looks like something else,
  quote it twice: '"1"' is the string 1.
  --params and --kwargs take all that follows, minus signs too, up to the next
  option. A string that begins with two of them is quoted twice as well, or
  given after a =: --params '"--all"', --params=--all

examples:
  executor_cli.py --function min --params 1 2
  executor_cli.py --function numpy.min --params [1,2]
  executor_cli.py --function sorted --params [1,3,2] --kwargs reverse=true
  executor_cli.py --function example_compute.compute_flops --params 1 2048

output:
  Standard output holds the value, as print() shows it, and nothing else. What
  the function prints itself goes to standard error.

exit status:
  0    the function returned
  1    it raised an exception (shown on standard error), or its module did
  2    there is no call to make: unknown function, wrong option or --kwargs
  130  interrupted by Ctrl-C
"""

#: The options, each with the greatest number of values it takes.
OPTIONS = {
    "--function": 1,
    "--params": sys.maxsize,
    "--kwargs": sys.maxsize,
    "--json": 0,
    "--version": 0,
    "--help": 0,
}


def main(arguments: list[str]) -> int:
    """Make the call that the command line asks for; return the exit status."""
    try:
        options = read_arguments(arguments)
        if "--help" in options:
            return write(1, HELP)
        if "--version" in options:
            from executor import __version__  # here, as all other calls do without

            return write(1, f"executor_cli.py {__version__}\n")
        return call(options)
    except UsageError as error:
        complain(f"executor_cli.py: error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def read_arguments(arguments: list[str]) -> dict[str, list[str]]:
    """Return the options given, each with its values as typed; all after ``--help`` is ignored.

    Raises:
        UsageError: an option is unknown, misplaced or incomplete, or there is no ``--function``.
    """
    options: dict[str, list[str]] = {}
    current = ""
    for text in arguments:
        room = bool(current) and len(options[current]) < OPTIONS[current]
        option, equals, value = text.partition("=")
        if text == "-h" and not room:
            option = "--help"
        if option in OPTIONS:
            current = option
            values = options.setdefault(option, [])
            if option in ("--help", "--version") and not equals:
                return options
            if values and OPTIONS[option] == 1:
                raise UsageError(f"{option} is given twice: a call has one")
            if equals and OPTIONS[option] == 0:
                raise UsageError(f"{option} takes no value: leave out the = and what follows")
            if equals:
                values.append(value)
        elif text.startswith("--"):
            raise UsageError(unknown_option(option, text))
        elif room:
            options[current].append(text)
        else:
            how = "arguments follow --params" if options else "write --function NAME --params VALUE ..."
            raise UsageError(f"{text!r} belongs to no option: {how}")
    if not options.get("--function"):
        raise UsageError("--function NAME is missing: which function to call, such as --function min")
    return options


def unknown_option(option: str, text: str) -> str:
    """Return the line for a text that looks like an option and is none."""
    import difflib  # only mistakes need it

    near = difflib.get_close_matches(option, OPTIONS, n=1)
    advice = f"did you mean {near[0]}? " if near else ""
    return f'there is no option {option!r}: {advice}to pass it as a string, quote it twice: "{text!r}"'


def call(options: dict[str, list[str]]) -> int:
    """Make the call, write its value to the standard output there was; return the exit status.

    Raises:
        UsageError: there is no such function, or the keyword arguments are malformed.
        KeyboardInterrupt: Ctrl-C, wherever it was met.
    """
    name = options["--function"][0]
    sys.set_int_max_str_digits(0)  # the limit protects servers from strangers, and here it is the user's own
    encoding: str = getattr(sys.stdout, "encoding", "utf-8")
    show: Callable[[object], str] = str
    if "--json" in options:
        from executor import jsonform  # now, as the current folder may hold modules of its imports' names

        show, encoding = jsonform.dumps, "utf-8"  # as JSON is, whatever the locale
    stdout = move_stdout(encoding)
    try:
        make_importable(os.getcwd())  # noqa: PTH109 - pathlib is slow to import
    except OSError:
        pass  # the folder is gone, and contextlib as slow
    doing = f"the import of {name}"
    try:
        function, args, kwargs = set_argument(name, options.get("--params", ()), options.get("--kwargs"))
        doing = name
        outcome = function_executor(function, args, kwargs)
        if outcome.error is None:
            doing = "the value's str()"
            outcome = function_executor(show, [outcome.value], {})
    except (UsageError, KeyboardInterrupt):
        raise
    except SystemExit as exc:
        code = function_executor(ascii, [exc.code], {}).value or "..."  # its repr() is the user's code too
        complain(f"executor_cli.py: {doing} called sys.exit({'' if exc.code is None else code})")
        return EXIT_NOT_OK
    except BaseException as exc:  # the import raised it, or it is a GeneratorExit
        error = describe(exc)
    else:
        if outcome.error is None:
            flush()
            return write(stdout, f"{outcome.value}\n", encoding)
        error = outcome.error
    ours = error.type == "executor.errors.CannotTravel"  # where we noticed that is no part of the user's code
    complain(f"{error.type.rpartition('.')[2]}: {error.message}" if ours else error.traceback)
    return EXIT_NOT_OK


def move_stdout(encoding: str) -> int:
    """Point standard output at standard error from now on; return a descriptor of what it was.

    It is never moved back: what C code has printed may lie in a buffer until the process ends.
    """
    spare = os.open(os.devnull, os.O_RDWR)
    while spare <= 2:  # a standard stream was closed: fill its place, lest another file takes it
        spare = os.open(os.devnull, os.O_RDWR)
    os.close(spare)
    stdout = os.dup(1)
    os.dup2(2, 1)
    # A new object, in step with standard error by lines; the old one may take the pipe for a file to seek in.
    sys.stdout = open(1, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    return stdout


def write(descriptor: int, text: str, encoding: str = "utf-8") -> int:
    """Write all of `text`; return the exit status. A reader that has gone is no error.

    Characters that the encoding lacks, lone surrogates for one, are written as ``\\udcff``.
    """
    rest = memoryview(text.encode(encoding, "backslashreplace"))
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        return EXIT_OK
    except OSError as exc:
        complain(f"executor_cli.py: standard output can't be written: {exc.strerror}")
        return EXIT_NOT_OK
    return EXIT_OK


def complain(text: str) -> None:
    """Write `text` and a newline to standard error, if there is one."""
    flush()
    try:
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # nobody is left to be told


def flush() -> None:
    """Send what the function printed on its way, before anything of ours."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, or replaced by the function
            pass  # and then nothing is held back


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
