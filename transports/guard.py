"""What protects a link: over a network the user's keys, around a unix socket a folder of the user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from executor import keys
from executor.errors import ConfigError
from transports.base import Say
from transports.settings import Settings

#: What helps where two ends don't know each other.
SAME_KEYS = "both ends must have the same keys, see keys.py"


def keys_for(settings: Settings, where: str, path: str | Path | None, say: Say) -> keys.Keys | None:
    """Return the keys that protect a link at `where`, or None: then it is a unix socket's, or nothing does.

    `path` is that of its unix socket, if it has one. That nothing protects it is the user's wish
    (`insecure`), and is said each time.

    Raises:
        ConfigError: the keys can't be used, or others may enter the socket's folder.
    """
    if settings.insecure:
        say(f"insecure: nothing protects {where}: whoever reaches it can run functions and read results")
        return None
    if not path:
        return keys.load(keys.place(settings.keys))
    folder = Path(path).parent
    try:
        info = folder.stat()
    except OSError:  # who listens or connects there says it better
        return None
    if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            f"unix:{path}: others may enter {folder}; choose a path in a folder of yours alone, of mode 700"
        )
    return None
