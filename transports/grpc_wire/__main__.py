"""Make the code of frames.proto anew, beside it or in the folder that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent.parent


def main(folder: str) -> int:
    """Generate into `folder`/transports/grpc_wire; return protoc's exit status."""
    # The proto's path from the root is the package's, so that the generated modules import each other.
    return int(
        protoc.main(
            [
                "protoc",
                f"--proto_path={ROOT}",
                f"--python_out={folder}",
                f"--grpc_python_out={folder}",
                "transports/grpc_wire/frames.proto",
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else str(ROOT)))
