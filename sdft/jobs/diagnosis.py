"""What facts about a machine mean: findings, and for each fault a problem with its cure.

In: facts. Out: a DoctorResult. Looks at nothing itself, so the faults of any machine can be told
from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdft import windows
from sdft.errors import Problem
from sdft.jobs.environment import NvidiaDriver, TorchBuild
from sdft.units import format_bytes

CUDA_WHEELS = "https://download.pytorch.org/whl/cu128"
"""PyTorch's own index of builds for CUDA 12.8."""

TORCH = '"torch>=2.10,<2.14"'

INSTALL_CUDA_TORCH = f"python -m pip install --force-reinstall {TORCH} --index-url {CUDA_WHEELS}"

OLDEST_DRIVER = {"11": (450, 450), "12": (525, 528), "13": (580, 580)}
"""By CUDA's major version, on Linux and on Windows.
Source: NVIDIA's CUDA compatibility guide, minor version compatibility."""

LOW_DISK_BYTES = 10 * 10**9
"""Below this a few full-size checkpoints (2 to 4 GB each) and a state fill the disk."""

LOW_MEMORY_BYTES = 8 * 10**9
"""Loading an SD 1.x in float32 takes about 4 GB; below twice that systems begin to swap."""

TRITON_WINDOWS = 'python -m pip install "triton-windows>=3.6,<3.8"'

_GIVES = {
    "bitsandbytes": ("8-bit and paged optimizers", "AdamW in 32 bits"),
    "xformers.ops": ("the attention of --xformers", "torch's own attention"),
    "triton": ("--torch_compile", "training without compiling"),
    "onnxruntime": ("the image tagger", "captions and tags from elsewhere"),
}
"""What an optional package gives, and what is used without it."""

_GET = {
    "bitsandbytes": ("python -m pip install bitsandbytes", ""),
    "xformers.ops": ("python -m pip install xformers", " (an NVIDIA GPU only)"),
    "triton": (TRITON_WINDOWS, " (on Windows; on Linux it comes with torch)"),
    "onnxruntime": ("python -m pip install onnxruntime", ""),
}
"""The line that brings it, and who can use that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a machine."""

    system: str
    """Such as `Linux 6.1, x86_64`."""
    python: str
    driver: NvidiaDriver | None
    build: TorchBuild | None
    tried: Mapping[str, Mapping[str, Any]]
    """What `sdft.jobs.probe` found of each package by importing it."""
    versions: Mapping[str, str]
    """Of the packages that are installed."""
    free_bytes: int
    """Of the disk on which results would lie."""
    memory_bytes: int
    available_bytes: int
    long_paths: bool | None = None
    """None where that is no question."""
    on_windows: bool = field(default_factory=windows.is_windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    name: str
    state: str
    """`ok`, `absent`, `broken` or `problem`."""
    value: str
    note: str = ""
    key: str = ""
    """Names the note for other languages, in `strings/messages.<language>.toml`."""
    values: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "value": self.value, "note": self.note}


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorResult:
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    device: str
    """What training would use: `cuda` or `cpu`."""

    def as_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "findings": [finding.as_json() for finding in self.findings],
            "problems": [problem.as_json() for problem in self.problems],
        }


_Told = tuple[list[Finding], list[Problem]]


def diagnosed(facts: Facts) -> DoctorResult:
    """Return what the facts mean."""
    findings, problems = _system(facts), list[Problem]()
    for part in (_torch, _optional, _onnxruntimes, _room, _long_paths):
        more, faults = part(facts)
        findings += more
        problems += faults
    available = bool(facts.tried.get("torch", {}).get("cuda_available"))
    device = "cuda" if available else "cpu"
    return DoctorResult(findings=tuple(findings), problems=tuple(problems), device=device)


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
            key="torch_without_cuda",
            values={"line": INSTALL_CUDA_TORCH},
        )
    if requested_device is not None and requested_device.startswith("cuda"):
        return Problem(
            "the installed torch has no CUDA, and no NVIDIA driver was found",
            where=f"--device {requested_device}",
            fix=f"--device cpu, or install the driver and then: {INSTALL_CUDA_TORCH}",
            key="no_cuda_at_all",
            values={"line": INSTALL_CUDA_TORCH},
        )
    return None


def _system(facts: Facts) -> list[Finding]:
    findings = [
        Finding(name="python", state="ok", value=facts.python),
        Finding(name="system", state="ok", value=facts.system),
    ]
    driver = facts.driver
    if driver is None:
        return [*findings, Finding(name="NVIDIA driver", state="absent", value="none")]
    cards = ", ".join(
        f"{name} ({mib / 1024:.0f} GiB)"
        for name, mib in zip(driver.gpus, driver.memory_mib, strict=True)
    )
    return [*findings, Finding(name="NVIDIA driver", state="ok", value=driver.version, note=cards)]


def _torch(facts: Facts) -> _Told:
    build, tried = facts.build, facts.tried.get("torch", {})
    if build is None:
        line = f"python -m pip install {TORCH}" if facts.driver is None else INSTALL_CUDA_TORCH
        problem = Problem(
            "torch is not installed", fix=line, key="torch_absent", values={"line": line}
        )
        return [Finding(name="torch", state="absent", value="none")], [problem]
    if "error" in tried:
        line = f"python -m pip install --force-reinstall {TORCH}"
        problem = Problem(
            f"torch cannot be imported: {tried['error']}",
            where=f"torch {build.version}",
            fix=line,
            key="torch_broken",
            values={"error": tried["error"], "line": line},
        )
        return [Finding(name="torch", state="broken", value=build.version)], [problem]
    kind = f"CUDA {build.cuda}" if build.cuda else f"ROCm {build.hip}" if build.hip else "CPU only"
    wrong = device_fault("auto", build, facts.driver)
    if wrong is None and facts.driver is not None and not tried.get("cuda_available"):
        wrong = _driver_fault(build, facts.driver, on_windows=facts.on_windows)
    state = "problem" if wrong is not None else "ok"
    findings = [Finding(name="torch", state=state, value=build.version, note=kind)]
    for device in tried.get("devices", []):
        memory = format_bytes(device["memory_bytes"])
        precision = "bf16 and fp16" if device["bf16"] else "fp16"
        note = f"compute capability {device['capability']}; mixed precision: {precision}"
        findings.append(
            Finding(
                name="GPU",
                state="ok",
                value=f"{device['name']}, {memory}",
                note=note,
                key="gpu",
                values={"capability": device["capability"], "precision": precision},
            )
        )
    return findings, [wrong] if wrong is not None else []


def _driver_fault(build: TorchBuild, driver: NvidiaDriver, *, on_windows: bool) -> Problem:
    """Return why a torch with CUDA cannot use the card: most often the driver is too old."""
    cuda, version = build.cuda or "", driver.version
    oldest = OLDEST_DRIVER.get(cuda.partition(".")[0], (0, 0))[on_windows]
    major = version.partition(".")[0]
    is_old = major.isdecimal() and int(major) < oldest
    if is_old and int(major) >= OLDEST_DRIVER["12"][on_windows]:
        return Problem(
            f"driver {version} is too old for this torch: CUDA {cuda} needs {oldest} or newer",
            where=f"torch {build.version}",
            fix=f"{INSTALL_CUDA_TORCH}\n     or install a newer NVIDIA driver",
            key="driver_too_old_for_torch",
            values={"driver": version, "cuda": cuda, "oldest": oldest, "line": INSTALL_CUDA_TORCH},
        )
    if is_old:
        line = _DRIVER_LINES[on_windows]
        return Problem(
            f"driver {version} is too old: CUDA {cuda} needs {oldest} or newer",
            where="NVIDIA driver",
            fix=f"{line}, then start the machine again",
            key="driver_too_old",
            values={"driver": version, "cuda": cuda, "oldest": oldest, "line": line},
        )
    return Problem(
        f"torch (CUDA {cuda}) cannot use the card with driver {version}",
        where="NVIDIA driver",
        fix="start the machine again; if that does not help, install the newest NVIDIA driver",
        key="card_unusable",
        values={"driver": version, "cuda": cuda},
    )


_DRIVER_LINES = (
    "install the newest NVIDIA driver of your distribution (Ubuntu: sudo ubuntu-drivers install)",
    "install the newest driver with the NVIDIA App, or: winget install Nvidia.NvidiaApp",
)
"""On Linux and on Windows."""


def _optional(facts: Facts) -> _Told:
    findings, problems = [], []
    for name, (gives, instead) in _GIVES.items():
        tried = facts.tried.get(name)
        package = name.partition(".")[0]
        if tried is None or tried.get("absent"):
            line, remark = _GET[name]
            note = f"for {gives}; without it: {instead}. To get it: {line}{remark}"
            findings.append(
                Finding(
                    name=package,
                    state="absent",
                    value="none",
                    note=note,
                    key=f"absent.{package}",
                    values={"line": line},
                )
            )
            continue
        versions = facts.versions
        version = versions.get(package) or versions.get(f"{package}-windows") or "installed"
        if "error" not in tried:
            findings.append(
                Finding(name=package, state="ok", value=version, note=gives, key=f"gives.{package}")
            )
            continue
        note = f"does not import, so {instead} is used"
        findings.append(
            Finding(
                name=package,
                state="broken",
                value=version,
                note=note,
                key=f"broken.{package}",
            )
        )
        line = f"python -m pip uninstall {package}"
        problems.append(
            Problem(
                str(tried["error"]),
                where=f"{package} {version}",
                fix=f"install the version that fits this torch, or remove it: {line}",
                key="package_broken",
                values={"error": tried["error"], "line": line},
            )
        )
    return findings, problems


def _onnxruntimes(facts: Facts) -> _Told:
    names = [name for name in facts.versions if name.startswith("onnxruntime")]
    if len(names) < 2:
        return [], []
    # The one that computes on a card is what a person installed on purpose.
    kept = next((name for name in names if name != "onnxruntime"), names[0])
    first = f"python -m pip uninstall -y {' '.join(names)}"
    second = f"python -m pip install {kept}"
    problem = Problem(
        f"{' and '.join(names)} are installed together and overwrite each other",
        where="onnxruntime",
        fix=f"{first}\n     {second}",
        key="two_onnxruntimes",
        values={"names": ", ".join(names), "first": first, "second": second},
    )
    return [], [problem]


def _room(facts: Facts) -> _Told:
    free, total = format_bytes(facts.free_bytes), format_bytes(facts.memory_bytes)
    problems = []
    if facts.free_bytes < LOW_DISK_BYTES:
        problems.append(
            Problem(
                f"only {free} are free; a checkpoint takes 2 to 4 GB",
                where="disk of the current folder",
                fix="free some space, or set output_dir to another disk",
                key="low_disk",
                values={"free": free},
            )
        )
    if facts.memory_bytes < LOW_MEMORY_BYTES:
        problems.append(
            Problem(
                f"{total} of memory is little for a full-size model",
                where="memory",
                fix="close other programs, or add swap space",
                key="low_memory",
                values={"total": total},
            )
        )
    available = format_bytes(facts.available_bytes)
    findings = [
        Finding(
            name="disk",
            state=_state(facts.free_bytes, LOW_DISK_BYTES),
            value=f"{free} free",
        ),
        Finding(
            name="memory",
            state=_state(facts.memory_bytes, LOW_MEMORY_BYTES),
            value=total,
            note=f"{available} available",
            key="available",
            values={"available": available},
        ),
    ]
    return findings, problems


def _state(there: int, needed: int) -> str:
    return "ok" if there >= needed else "problem"


def _long_paths(facts: Facts) -> _Told:
    if facts.long_paths is None:
        return [], []
    if facts.long_paths:
        return [Finding(name="long paths", state="ok", value="on")], []
    problem = Problem(
        "paths of more than 260 characters do not work",
        where="Windows",
        fix=f"as administrator, then start the machine again: {windows.ENABLE_LONG_PATHS}",
        key="long_paths_off",
        values={"line": windows.ENABLE_LONG_PATHS},
    )
    return [Finding(name="long paths", state="problem", value="off")], [problem]
