"""Runs every check, for a person and for the build: format, lint, types, layers, tests.

    python tests/check.py              all of them
    python tests/check.py ruff mypy    only those named

Ends with the first failing check's exit status, after all have run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "layers": ["importlinter.cli", "lint-imports"],
    # Two processes of one thread each: small models gain nothing from more threads. In the order of
    # the folders: ordered by their number of tests, files of one long test would come last, one
    # process waiting for the other.
    "pytest": ["pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"],
}


def command(words: list[str]) -> list[str]:
    if words[0] == "importlinter.cli":
        return [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    return [sys.executable, "-m", *words]


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    status = 0
    for name in names or CHECKS:
        started_s = time.monotonic()
        code = subprocess.run(
            command(CHECKS[name]), cwd=ROOT, env=environment, check=False
        ).returncode
        verdict = "passed" if code == 0 else f"FAILED with {code}"
        print(f"== {name}: {verdict} in {time.monotonic() - started_s:.0f} s", flush=True)
        status = status or code
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
