"""How many files this process may have open."""

from __future__ import annotations


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as it may have.

    Each child of a worker needs a handful, and each worker of a dispatcher one or two: at the usual thousand
    a dispatcher would keep the next one waiting, in silence.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS caps it below what it reports; the present limit must do
            pass
