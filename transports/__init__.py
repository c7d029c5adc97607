"""The wires. A wire's module, and the library it speaks through, is imported only when it is chosen."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from executor.errors import ConfigError

if TYPE_CHECKING:
    from transports.base import Transport

#: The one place that knows the wires by name: ``module:Class`` of each.
WIRES: dict[str, str] = {
    "grpc": "transports.grpc:GRPC",
    "rabbitmq": "transports.rabbitmq:RabbitMQ",
    "rpyc": "transports.rpyc:RPyC",
    "zmq": "transports.zeromq:ZeroMQ",
}


def load(name: str) -> type[Transport]:
    """Return the wire of that name, or the class that ``package.module:Class`` names.

    Raises:
        ConfigError: there is none, or a package that it needs is not installed.
    """
    target = WIRES.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        known = ", ".join(sorted(WIRES))
        raise ConfigError(
            f"unknown transport {name!r}; known are {known}, or a class of yours as package.module:Class"
        )
    if name not in WIRES and (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)  # somebody's own, in the folder that they stand in
    try:
        transport = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"transport {name!r} needs the module {error.name!r}: install it with pip"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"transport {name!r}: {module_name} has no {class_name}") from error
    except Exception as error:  # a library may raise anything when it dislikes another's version
        raise ConfigError(f"transport {name!r} can't be loaded: {error}") from error
    from transports.base import Transport

    if not (isinstance(transport, type) and issubclass(transport, Transport)):
        raise ConfigError(f"transport {name!r}: {class_name} is not a subclass of transports.base.Transport")
    return transport
