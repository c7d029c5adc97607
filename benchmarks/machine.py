"""Where and on what something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from executor import cores

ROOT = Path(__file__).resolve().parent.parent

#: What our own figures depend on.
PACKAGES = ("msgspec", "numpy", "pyzmq", "pika", "grpcio", "rpyc")


def machine() -> dict[str, Any]:
    """Return what machine this is, and how busy: a figure of a busy one says little."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(cores.granted().ids),
        "memory": psutil.virtual_memory().total,
        "load": [round(each, 2) for each in os.getloadavg()],
        "python": platform.python_version(),
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed, and of this repository."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # not installed, so there is no version to tell
            continue
    if commit := _commit():
        found["function-executor"] = commit
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit that is checked out, with ``+`` if files were changed since; "" outside of git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except OSError:  # there is no git here
        return ""
    return done.stdout.strip()
