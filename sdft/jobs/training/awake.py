"""Keeps the machine from falling asleep while a run trains, where the system has a way.

Windows: the thread says that it is needed (`sdft.windows`). macOS and Linux: a helper of the system
does so as long as this process lives. Without one, nothing happens, since nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from sdft import windows


@contextlib.contextmanager
def kept_awake(wanted: bool = True) -> Iterator[bool]:
    """Hold sleep off for the length of the block; give whether the system agreed."""
    if not wanted:
        yield False
    elif windows.is_windows():
        with windows.kept_awake() as agreed:
            yield agreed
    else:
        with _helper(helper_line(sys.platform, os.getpid())) as agreed:
            yield agreed


def helper_line(platform: str, pid: int) -> list[str]:
    """Return the command that holds sleep off until it is ended, or nothing."""
    if platform == "darwin":
        # -w: ends with this process, even where that is killed.
        return ["caffeinate", "-i", "-w", str(pid)]
    reason = "--why=training"
    # The inner process ends with this one, however this one ends.
    watch = ["tail", f"--pid={pid}", "-f", os.devnull]
    return ["systemd-inhibit", "--what=sleep:idle", "--who=sdft", reason, *watch]


@contextlib.contextmanager
def _helper(line: list[str]) -> Iterator[bool]:
    process = None
    if shutil.which(line[0]) is not None:
        with contextlib.suppress(OSError):
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for this process; the helper would end before the state is saved.
                start_new_session=True,
            )
    try:
        yield process is not None and process.poll() is None
    finally:
        if process is not None:
            process.terminate()
            process.wait()
