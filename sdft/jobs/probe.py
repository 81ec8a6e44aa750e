"""Tries out, in a process of its own, what may be broken or slow to import.

Run as `python -m sdft.jobs.probe`. Writes one JSON object a line, marked, since libraries print
too; the line `begin` comes before each trial, so that a crash is known by name.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import Any

MARK = "sdft-probe "
"""In front of each line that is meant for the reader."""

OPTIONAL = ("bitsandbytes", "xformers.ops", "triton", "onnxruntime")

_LIMIT_S = 180.0
"""On a cold disk torch alone may take a minute to import."""


def torch_facts() -> dict[str, Any]:
    """Return what torch sees of this machine. Imports torch."""
    import torch

    facts: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cuda_available": torch.cuda.is_available(),
        "devices": [],
    }
    if facts["cuda_available"]:
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            facts["devices"].append(
                {
                    "name": properties.name,
                    "memory_bytes": properties.total_memory,
                    "capability": f"{properties.major}.{properties.minor}",
                    "bf16": properties.major >= 8,
                }
            )
    return facts


def probe(limit_s: float = _LIMIT_S) -> dict[str, dict[str, Any]]:
    """Try everything in another process; return, by name, facts or `{"error": words}`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sdft.jobs.probe"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
        text, ending = done.stdout, f"crashed with code {done.returncode}"
    except subprocess.TimeoutExpired as late:
        text = late.stdout.decode("utf-8", "replace") if isinstance(late.stdout, bytes) else ""
        ending = f"did not answer within {limit_s:.0f} s"
    return _read(text, ending)


def _read(text: str, ending: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith(MARK):
            record = json.loads(line.removeprefix(MARK))
            # What began and never answered is what brought the process down.
            found[record["name"]] = record.get("facts", {"error": ending})
    return found


def _main() -> None:
    for name in ("torch", *OPTIONAL):
        _say({"name": name})
        try:
            facts = torch_facts() if name == "torch" else _import(name)
        except Exception as error:  # noqa: BLE001 - a broken library may raise anything; it is told
            facts = {"error": _first_line(error)}
        _say({"name": name, "facts": facts})


def _import(name: str) -> dict[str, Any]:
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return {"absent": True}
    importlib.import_module(name)
    return {}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(record)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
