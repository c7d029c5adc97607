"""How much memory a process and its descendants really hold."""

from __future__ import annotations


def resident(pid: int) -> int:
    """Return the resident size of a process and all its descendants, in bytes; 0 if it is gone.

    Not its address space, of which libraries reserve far more than they use. Pages that several of them
    share are counted for each.
    """
    import psutil  # 30 ms that a worker without such tasks need not spend

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def in_words(size: int) -> str:
    """Return a size as one reads it: ``512 MB``, ``2.1 GB``."""
    value, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
