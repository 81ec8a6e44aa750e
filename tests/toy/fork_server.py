"""Runs command lines of `sdft` in forked children, with torch already loaded, and kills them.

A program of its own: one JSON object a line comes in, one goes out. In: `argv`, `folder` (whose
changes are counted), `log`, and perhaps `kill_at_change` (the child dies by SIGKILL right before
its n-th change of the file system) or `kill_after_s`. Out: `code` (negative: the signal), the
number of `changes`, and `seconds`.

The parent computes nothing, so it has no threads that a fork would lose.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")


def load_everything() -> None:
    """Import what takes seconds, before the first fork."""
    import importlib

    for name in (
        "accelerate",
        "diffusers",
        "transformers",
        "bitsandbytes",
        "diffusers.models.autoencoders.autoencoder_kl",
        "diffusers.models.unets.unet_2d_condition",
        "sdft.jobs.training.assembly",
        "sdft.jobs.convert",
        "sdft.jobs.metadata",
        "sdft.jobs.verify",
        "sdft.cli.train",
        "sdft.cli.cache_latents",
        "sdft.cli.metadata",
        "sdft.cli.convert",
        "sdft.views.console",
        "sdft.views.record",
    ):
        importlib.import_module(name)


def count_changes(folder: str, kill_at: int | None, report: Path) -> None:
    """Count each change of the file system below `folder`, and perhaps die right before one."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not str(path).startswith(folder):
            return
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if kill_at is None:
            # The descriptor is open already: writing to it is no change that is counted.
            os.pwrite(handle, str(count).encode(), 0)

    handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(hook)


def child(order: dict[str, Any], report: Path) -> int:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setsid()
    count_changes(order["folder"], order.get("kill_at_change"), report)
    from sdft.cli.app import run

    return run(order["argv"])


def shell(line: str) -> dict[str, Any]:
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    return {"code": done.returncode, "output": done.stdout + done.stderr}


def serve(order: dict[str, Any]) -> dict[str, Any]:
    if "shell" in order:
        return shell(order["shell"])
    report = Path(order["log"]).with_suffix(".changes")
    report.write_text("", "ascii")
    started_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = child(order, report)
        except BaseException:  # noqa: BLE001 - the edge of the child, which must not return
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    kill_after_s = order.get("kill_after_s")
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        elapsed_s = time.monotonic() - started_s
        if kill_after_s is not None and elapsed_s >= kill_after_s:
            os.kill(pid, signal.SIGKILL)
            kill_after_s = None
        time.sleep(0.002)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "changes": int(report.read_text("ascii") or 0),
        "seconds": time.monotonic() - started_s,
    }


def main() -> None:
    load_everything()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
