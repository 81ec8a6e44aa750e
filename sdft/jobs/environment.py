"""Facts about this machine and what is installed, for `environment.json` and `sdft doctor`.

Nothing here says who or where the user is: no user or host name, no path. Whatever a run folder
holds may be sent to somebody who helps.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from sdft import __version__

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "pillow",
    "pydantic",
    "typer",
    "rich",
    "textual",
    "tomlkit",
    "bitsandbytes",
    "xformers",
    "triton",
    "triton-windows",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
)
"""Whose versions matter when a result is to be understood."""

_NVIDIA_SMI_LIMIT_S = 20.0
"""A driver that hangs must not hang the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBuild:
    """What the installed torch was built for, read without importing it."""

    version: str
    cuda: str | None
    """Such as `12.8`; none in a CPU-only build."""
    hip: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaDriver:
    """What the driver says; the lists are empty where it is there but does not answer."""

    version: str
    gpus: tuple[str, ...]
    """Names of the cards."""
    memory_mib: tuple[int, ...]


def environment_facts() -> dict[str, object]:
    """Return what `environment.json` holds, in the types of JSON. Imports no torch."""
    build, driver = torch_build(), nvidia_driver()
    return {
        "sdft": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "torch_cuda": build.cuda if build else None,
        "torch_hip": build.hip if build else None,
        "nvidia_driver": driver.version if driver else None,
        "gpus": list(driver.gpus) if driver else [],
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that are installed, read from their metadata."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def torch_build() -> TorchBuild | None:
    """Return what torch was built for, or None where it is not installed.

    The version alone does not tell: on Windows the default build has no CUDA and the same number.
    """
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    version_file = Path(next(iter(found.submodule_search_locations))) / "version.py"
    try:
        text = version_file.read_text(encoding="utf-8")
    except OSError:
        return None
    return TorchBuild(
        version=_assigned(text, "__version__") or "unknown",
        cuda=_assigned(text, "cuda"),
        hip=_assigned(text, "hip"),
    )


def _assigned(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*(?::[^=\n]*)?=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match[1] if match else None


def nvidia_driver() -> NvidiaDriver | None:
    """Return the NVIDIA driver of this machine, or None where there is none."""
    rows = ask_nvidia_smi("driver_version", "memory.total", "name")
    if rows:
        return NvidiaDriver(
            version=rows[0][0],
            gpus=tuple(name for _, _, name in rows),
            memory_mib=tuple(int(mib) if mib.isdecimal() else 0 for _, mib, _ in rows),
        )
    try:
        # A container often has the driver but not the program.
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return NvidiaDriver(version=match[1] if match else "unknown", gpus=(), memory_mib=())


def ask_nvidia_smi(*fields: str) -> list[list[str]]:
    """Return what NVIDIA's program says of each card; nothing without it or where it fails."""
    program = shutil.which("nvidia-smi")
    if program is None and sys.platform == "win32":
        beside_system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        candidate = beside_system / "nvidia-smi.exe"
        program = str(candidate) if candidate.exists() else None
    if program is None:
        return []
    try:
        answer = subprocess.run(
            [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_NVIDIA_SMI_LIMIT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ", len(fields) - 1) for line in answer.splitlines()]
    return [[one.strip() for one in row] for row in rows if len(row) == len(fields)]


def hide_home(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return text in which the home folder is written `~`, so that it names nobody."""
    homes = {environment.get("HOME"), environment.get("USERPROFILE")}
    for home in sorted((home for home in homes if home), key=len, reverse=True):
        # "/" is the home of some service accounts; replacing it would eat every path.
        if len(home) <= 3:
            continue
        for spelling in {home, home.replace("\\", "/")}:
            whole_part = rf"(?<![\w./\\~-]){re.escape(spelling)}(?![\w.-])"
            text = re.sub(whole_part, "~", text)
    return text
