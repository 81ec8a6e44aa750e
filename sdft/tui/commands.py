"""Runs `sdft` commands as processes of their own: what they need, the screens never import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sdft
from sdft.errors import Problem
from sdft.files import make_folder
from sdft.shell import shell_line

WAIT_PIECE_S = 0.05
NUM_LINES_KEPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    result: Mapping[str, Any]
    """What `--json` printed; empty where it printed nothing."""
    problems: tuple[Problem, ...]


def python_line(words: Sequence[str]) -> list[str]:
    """Return the line that runs `sdft` with these words by this very Python."""
    # -P: a folder with a `random.py` in it must not get into the way.
    return [sys.executable, "-P", "-m", "sdft", *words]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    home = str(Path(sdft.__file__).parent.parent)
    if "site-packages" not in home:
        known = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = os.pathsep.join([home, *([known] if known else [])])
    # Else a pipe has the code page of the system, which differs from what is read here.
    environment["PYTHONIOENCODING"] = "utf-8"
    # A web terminal's driver, or a size that only this screen has, are not the command's.
    for name in ("TEXTUAL_DRIVER", "COLUMNS", "LINES"):
        environment.pop(name, None)
    return environment


def run_command(
    words: Sequence[str],
    cwd: Path,
    *,
    tell: Callable[[str], None] = lambda _line: None,
    is_cancelled: Callable[[], bool] = lambda: False,
    with_json: bool = True,
) -> Done:
    """Run a command with `--json` and wait for it; `tell` gets each line of its progress.
    Without `with_json` the words have it already, such as in front of a `--`.

    Where it is cancelled the process is ended; every command can be ended at any instant.
    """
    process = subprocess.Popen(
        python_line([*words, "--json"] if with_json else words),
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    lines: deque[str] = deque(maxlen=NUM_LINES_KEPT)
    printed: list[str] = []

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            tell(line.rstrip())

    def collect() -> None:
        assert process.stdout is not None
        printed.append(process.stdout.read())

    readers = [threading.Thread(target=part, daemon=True) for part in (follow, collect)]
    for reader in readers:
        reader.start()
    while process.poll() is None:
        if is_cancelled():
            process.terminate()
        try:
            process.wait(WAIT_PIECE_S)
        except subprocess.TimeoutExpired:
            continue
    for reader in readers:
        reader.join()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return _done(process.returncode, "".join(printed), tuple(lines))


def _done(code: int, printed: str, lines: tuple[str, ...]) -> Done:
    try:
        result = json.loads(printed) if printed.strip() else {}
    except ValueError:
        result = {}
    found = result.get("problems", []) if code else []
    problems = tuple(map(Problem.from_json, found))
    if code and not problems:
        problems = (Problem(lines[-1] if lines else f"ended with {code}"),)
    return Done(code=code, result=result, problems=problems)


def start_detached(words: Sequence[str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a command that goes on when this process and its terminal end.

    What it prints is added to `log`.

    Raises: EnvironmentFault where the log's folder cannot be made; OSError.
    """
    make_folder(log.parent)
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
        apart = {"creationflags": flags}
    with log.open("ab") as output:
        return subprocess.Popen(
            python_line(words),
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **apart,
        )


def shown_line(words: Sequence[str]) -> str:
    """Return the words behind `sdft` as a line to copy into this system's shell."""
    return shell_line(["sdft", *words])
