#!/usr/bin/env python3
"""Show, renew or export the keys by which this user's dispatchers and workers know each other."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EPILOG = """\
They are made by themselves where they are needed. To work with another machine
that does not share this home:
  python keys.py export for-login1
  scp -rp for-login1 login1:.config/function-executor/keys

exit status:
  0  done
  2  the command line is wrong, or the keys can't be used
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    from executor import options
    from executor.keys import VARIABLE

    parse = options.parser("keys.py", __doc__ or "", EPILOG)
    parse.add_argument(
        "action", nargs="?", choices=("show", "renew", "export"), default="show",
        help="show where they are and their fingerprint (default); renew: replace them by new ones; export: "
        "copy them to a new folder",
    )  # fmt: skip
    parse.add_argument("target", nargs="?", metavar="FOLDER", help="with export: the new folder")
    parse.add_argument(
        "--keys", metavar="FOLDER", help=f"the keys' folder (default: {VARIABLE}, else that of this user)"
    )
    return parse


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parse = parser()
    arguments = parse.parse_args()
    if (arguments.action == "export") != (arguments.target is not None):
        parse.error("export goes with the name of a new folder, and nothing else does")

    import os
    import shlex
    import time
    from pathlib import Path

    from executor import keys

    folder = keys.place(arguments.keys)
    if arguments.action == "renew":
        old = keys.load(folder).fingerprint
        new = keys.renew(folder)
        print(f"{new.folder}: {new.fingerprint} in place of {old}")
        print(
            "what runs now keeps the old keys until it is started again; copies elsewhere are to be replaced"
        )
        return 0
    fresh = not os.path.exists(folder / keys.FILE)  # noqa: PTH110 - the path's own method raises, where one may not look
    found = keys.load(folder)
    if arguments.action == "export":
        target = Path(arguments.target).absolute()
        keys.export(found, target)
        print(f"{target}: {found.fingerprint}")
        print(f"copy it: scp -rp {shlex.quote(str(target))} HOST:.config/function-executor/keys")
        print("and remove it here; who has it can run anything that you can")
        return 0
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.made))
    print(f"{found.folder}: {found.fingerprint}, made {'just now, as there were none' if fresh else made}")
    return 0


if __name__ == "__main__":
    from executor import streams
    from executor.errors import EXIT_USAGE, ExecutorError

    try:
        streams.prepare()
        sys.exit(main())
    except ImportError as error:
        streams.complain(f"keys.py: error: {error}; {streams.INSTALL}")
        sys.exit(EXIT_USAGE)
    except ExecutorError as error:
        streams.complain(f"keys.py: error: {error}")
        sys.exit(error.exit_status)
