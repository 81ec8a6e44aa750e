"""`sdft doctor`: what this machine has, what will be used, what is missing and how to get it.

In: the machine. Out: findings, and a problem for each thing that keeps a run from what the
machine could do. It names no user, host or path.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from sdft import windows
from sdft.errors import Problem
from sdft.events import Emit, StageFinished, StageStarted
from sdft.jobs.environment import (
    NvidiaDriver,
    TorchBuild,
    nvidia_driver,
    package_versions,
    torch_build,
)
from sdft.jobs.probe import probe
from sdft.units import format_bytes

CUDA_WHEELS = "https://download.pytorch.org/whl/cu128"
"""PyTorch's own index of builds for CUDA 12.8, which drivers from 570 on run."""

INSTALL_CUDA_TORCH = (
    f'python -m pip install --force-reinstall "torch>=2.10,<2.14" --index-url {CUDA_WHEELS}'
)

LOW_DISK_BYTES = 10 * 10**9
"""Below this a few full-size checkpoints (2 to 4 GB each) and a state fill the disk."""

LOW_MEMORY_BYTES = 8 * 10**9
"""Loading an SD 1.x in float32 takes about 4 GB; below twice that systems begin to swap."""

_STAGE = "looking at this machine"

_GIVES = {
    "bitsandbytes": ("8-bit and paged optimizers", "AdamW in 32 bits"),
    "xformers.ops": ("the attention of --xformers", "torch's own attention"),
    "triton": ("--torch_compile", "training without compiling"),
    "onnxruntime": ("the image tagger", "captions and tags from elsewhere"),
}
"""What an optional package gives, and what is used without it."""

_GET = {
    "bitsandbytes": "python -m pip install bitsandbytes",
    "xformers.ops": "python -m pip install xformers (an NVIDIA GPU only)",
    "triton": "on Windows: python -m pip install triton-windows; on Linux it comes with torch",
    "onnxruntime": "python -m pip install onnxruntime",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    name: str
    state: str
    """`ok`, `absent`, `broken` or `problem`."""
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorResult:
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    device: str
    """What training would use: `cuda` or `cpu`."""

    def as_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "findings": [asdict(finding) for finding in self.findings],
            "problems": [asdict(problem) for problem in self.problems],
        }


def run_doctor(folder: Path, *, emit: Emit) -> DoctorResult:
    """Look at everything. Takes some seconds, because torch is imported in another process.

    `folder` is where results would be written; only its disk is looked at.
    """
    started_s = time.monotonic()
    emit(StageStarted(stage=_STAGE, total=0, unit="parts"))
    driver, build, tried = nvidia_driver(), torch_build(), probe()
    findings, problems = _torch(build, driver, tried.get("torch", {}))
    for more, faults in (
        _optional(tried),
        _onnxruntimes(package_versions()),
        _room(folder),
        long_paths_fault(windows.long_paths_are_on()),
    ):
        findings += more
        problems += faults
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=_STAGE, done=len(findings), duration_s=duration_s))
    available = bool(tried.get("torch", {}).get("cuda_available"))
    return DoctorResult(
        findings=(*_system(driver), *findings),
        problems=tuple(problems),
        device="cuda" if available else "cpu",
    )


def device_problem(requested_device: str | None) -> Problem | None:
    """Return why this machine cannot train on `requested_device` as it should, or None.

    `requested_device` is `auto` (or None), `cpu`, `cuda` or `cuda:1`.
    """
    if requested_device == "cpu":
        return None
    return device_fault(requested_device, torch_build(), nvidia_driver())


def device_fault(
    requested_device: str | None, build: TorchBuild | None, driver: NvidiaDriver | None
) -> Problem | None:
    """Return what is wrong with a torch build beside a driver, or None.

    An NVIDIA driver beside a torch that has no CUDA is a mistake of the installation, and a run
    that then takes weeks on the CPU is no answer to it.
    """
    if build is None or build.cuda or build.hip:
        return None
    if driver is not None:
        return Problem(
            "this machine has an NVIDIA driver, but the installed torch has no CUDA",
            where=f"torch {build.version}",
            fix=f"{INSTALL_CUDA_TORCH}\n     or train on the CPU: --device cpu",
        )
    if requested_device is not None and requested_device.startswith("cuda"):
        return Problem(
            "the installed torch has no CUDA, and no NVIDIA driver was found",
            where=f"--device {requested_device}",
            fix=f"--device cpu, or install the driver and then: {INSTALL_CUDA_TORCH}",
        )
    return None


def _system(driver: NvidiaDriver | None) -> list[Finding]:
    findings = [
        Finding(name="python", state="ok", value=platform.python_version()),
        Finding(
            name="system",
            state="ok",
            value=f"{platform.system()} {platform.release()}, {platform.machine()}",
        ),
    ]
    if driver is None:
        return [*findings, Finding(name="NVIDIA driver", state="absent", value="none")]
    cards = ", ".join(
        f"{name} ({mib / 1024:.0f} GiB)"
        for name, mib in zip(driver.gpus, driver.memory_mib, strict=True)
    )
    return [
        *findings,
        Finding(name="NVIDIA driver", state="ok", value=driver.version, note=cards),
    ]


def _torch(
    build: TorchBuild | None, driver: NvidiaDriver | None, tried: Mapping[str, Any]
) -> tuple[list[Finding], list[Problem]]:
    if build is None:
        problem = Problem("torch is not installed", fix="python -m pip install torch")
        return [Finding(name="torch", state="absent", value="none")], [problem]
    if "error" in tried:
        problem = Problem(
            f"torch cannot be imported: {tried['error']}",
            where=f"torch {build.version}",
            fix="python -m pip install --force-reinstall torch",
        )
        return [Finding(name="torch", state="broken", value=build.version)], [problem]
    kind = f"CUDA {build.cuda}" if build.cuda else f"ROCm {build.hip}" if build.hip else "CPU only"
    wrong = device_fault("auto", build, driver)
    if wrong is None and driver is not None and not tried.get("cuda_available"):
        wrong = Problem(
            f"torch (CUDA {build.cuda}) cannot use the card with driver {driver.version}",
            fix="install the newest NVIDIA driver and start the machine again",
        )
    state = "problem" if wrong is not None else "ok"
    findings = [Finding(name="torch", state=state, value=build.version, note=kind)]
    for device in tried.get("devices", []):
        memory = format_bytes(device["memory_bytes"])
        precision = "bf16 and fp16" if device["bf16"] else "fp16"
        note = f"compute capability {device['capability']}; mixed precision: {precision}"
        findings.append(
            Finding(name="GPU", state="ok", value=f"{device['name']}, {memory}", note=note)
        )
    return findings, [wrong] if wrong is not None else []


def _optional(tried: Mapping[str, Mapping[str, Any]]) -> tuple[list[Finding], list[Problem]]:
    versions, findings, problems = package_versions(), [], []
    for name, (gives, instead) in _GIVES.items():
        facts = tried.get(name)
        package = name.partition(".")[0]
        if facts is None or facts.get("absent"):
            note = f"for {gives}; without it: {instead}. To get it: {_GET[name]}"
            findings.append(Finding(name=package, state="absent", value="none", note=note))
            continue
        version = versions.get(package) or versions.get(f"{package}-windows") or "installed"
        if "error" in facts:
            note = f"does not import, so {instead} is used"
            findings.append(Finding(name=package, state="broken", value=version, note=note))
            fix = "install the version that fits this torch, or remove it: "
            problems.append(
                Problem(
                    str(facts["error"]),
                    where=f"{package} {version}",
                    fix=f"{fix}python -m pip uninstall {package}",
                )
            )
        else:
            findings.append(Finding(name=package, state="ok", value=version, note=gives))
    return findings, problems


def _onnxruntimes(versions: Mapping[str, str]) -> tuple[list[Finding], list[Problem]]:
    names = [name for name in versions if name.startswith("onnxruntime")]
    if len(names) < 2:
        return [], []
    problem = Problem(
        f"{' and '.join(names)} are installed together and overwrite each other",
        where="onnxruntime",
        fix=f"python -m pip uninstall {' '.join(names)}, then install one of them",
    )
    return [], [problem]


def _room(folder: Path) -> tuple[list[Finding], list[Problem]]:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free, memory = shutil.disk_usage(existing).free, psutil.virtual_memory()
    problems = []
    if free < LOW_DISK_BYTES:
        problems.append(
            Problem(
                f"only {format_bytes(free)} are free; a checkpoint takes 2 to 4 GB",
                where="disk of the current folder",
                fix="free some space, or set output_dir to another disk",
            )
        )
    if memory.total < LOW_MEMORY_BYTES:
        problems.append(
            Problem(
                f"{format_bytes(memory.total)} of memory is little for a full-size model",
                where="memory",
                fix="close other programs, or add swap space",
            )
        )
    findings = [
        Finding(
            name="disk", state=_state(free, LOW_DISK_BYTES), value=f"{format_bytes(free)} free"
        ),
        Finding(
            name="memory",
            state=_state(memory.total, LOW_MEMORY_BYTES),
            value=format_bytes(memory.total),
            note=f"{format_bytes(memory.available)} available",
        ),
    ]
    return findings, problems


def _state(there: int, needed: int) -> str:
    return "ok" if there >= needed else "problem"


def long_paths_fault(on: bool | None) -> tuple[list[Finding], list[Problem]]:
    """Return what the setting for long paths means; None is a system without such a limit."""
    if on is None:
        return [], []
    if on:
        return [Finding(name="long paths", state="ok", value="on")], []
    problem = Problem(
        "paths of more than 260 characters do not work",
        where="Windows",
        fix=f"as administrator, then start the machine again: {windows.ENABLE_LONG_PATHS}",
    )
    return [Finding(name="long paths", state="problem", value="off")], [problem]
