"""Write the Python code of every proto: `python protos/generate.py service`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PROTOS = Path(__file__).parent


def generate(output: Path) -> None:
    """Write messages, services and their stubs below `output`, which must exist."""
    scripts = sysconfig.get_path("scripts")
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=."]
    command += [f"--{plugin}_out={output.absolute()}" for plugin in ("python", "grpc_python")]
    command += [f"--{plugin}_out=quiet:{output.absolute()}" for plugin in ("mypy", "mypy_grpc")]
    command += sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}  # protoc looks for plugins there
    subprocess.run(command, check=True, cwd=PROTOS, env=environment)


def main() -> None:
    """Generate below the directory that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    generate(parser.parse_args().output)


if __name__ == "__main__":
    main()
