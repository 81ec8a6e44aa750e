"""`sdft doctor`: what this machine has, what will be used, what is missing and how to get it.

In: the machine. Out: findings, and a problem for each thing that keeps a run from what the
machine could do. It names no user, host or path.
"""

from __future__ import annotations

import platform
import shutil
import time
from pathlib import Path

import psutil

from sdft import windows
from sdft.errors import Problem
from sdft.events import Emit, StageFinished, StageStarted
from sdft.jobs.diagnosis import DoctorResult, Facts, device_fault, diagnosed
from sdft.jobs.environment import nvidia_driver, package_versions, torch_build
from sdft.jobs.probe import probe

_STAGE = "looking at this machine"


def run_doctor(folder: Path, *, emit: Emit) -> DoctorResult:
    """Look at everything. Takes some seconds, because torch is imported in another process.

    `folder` is where results would be written; only its disk is looked at.
    """
    started_s = time.monotonic()
    emit(StageStarted(stage=_STAGE, total=0, unit="parts"))
    result = diagnosed(facts_of_machine(folder))
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=_STAGE, done=len(result.findings), duration_s=duration_s))
    return result


def facts_of_machine(folder: Path) -> Facts:
    """Return what is known of this machine and of the disk of `folder`."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    memory = psutil.virtual_memory()
    return Facts(
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        python=platform.python_version(),
        driver=nvidia_driver(),
        build=torch_build(),
        tried=probe(),
        versions=package_versions(),
        free_bytes=shutil.disk_usage(existing).free,
        memory_bytes=memory.total,
        available_bytes=memory.available,
        long_paths=windows.long_paths_are_on(),
    )


def device_problem(requested_device: str | None) -> Problem | None:
    """Return why this machine cannot train on `requested_device` as it should, or None.

    `requested_device` is `auto` (or None), `cpu`, `cuda` or `cuda:1`.
    """
    if requested_device == "cpu":
        return None
    return device_fault(requested_device, torch_build(), nvidia_driver())
