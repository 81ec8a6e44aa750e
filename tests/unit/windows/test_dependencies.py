"""All that is needed can be installed on Windows and macOS: an installer is asked, none is run.

The answer needs the package index; where that cannot be reached, the tests are skipped and say so.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sdft.jobs.diagnosis import CUDA_WHEELS, INSTALL_CUDA_TORCH, TRITON_WINDOWS

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = (
    *("tagger", "parquet", "s3", "gs", "http", "optimizers", "trackers", "web"),
    *("gpu", "xformers", "triton-windows"),
)

UNREACHABLE = ("error sending request", "dns error", "Failed to fetch", "operation timed out")
"""What the installer says where it gets no answer at all; a missing package reads otherwise."""

PLAIN_PYTHON = ("dadaptation",)
"""Has no wheel, only an archive of plain Python, which installs anywhere."""

ONLY_LINUX = ("nvidia-cu", "cuda-toolkit", "nvidia-nccl", "triton==", "uvloop")


def resolved(requirements: str, *options: str) -> dict[str, str]:
    """Return the versions that would be installed, from wheels only."""
    line = [sys.executable, "-m", "uv", "pip", "compile", "-", "--no-header", "--no-annotate"]
    done = subprocess.run(
        [*line, "--quiet", "--only-binary", ":all:", *options],
        input=requirements,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        cwd=ROOT,
        check=False,
    )
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    pairs = (line.partition(" ;")[0].split("==") for line in done.stdout.splitlines() if line)
    return {name.partition("[")[0]: version for name, version in pairs}


def requirements(extras: tuple[str, ...]) -> str:
    optional = [one for extra in extras for one in PROJECT["optional-dependencies"][extra]]
    every = [*PROJECT["dependencies"], *optional]
    return "\n".join(one for one in every if not one.startswith(PLAIN_PYTHON))


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_everything_can_be_installed_on_windows(python: str) -> None:
    options = ("--python-platform", "windows", "--python-version", python)
    found = resolved(requirements(EXTRAS), *options)
    assert {"torch", "bitsandbytes", "xformers", "triton-windows", "onnxruntime"} <= found.keys()
    lines = [f"{name}=={version}" for name, version in found.items()]
    assert [line for line in lines if line.startswith(ONLY_LINUX)] == []
    assert (2, 10) <= tuple(map(int, found["torch"].split(".")[:2])) < (2, 14)


def test_everything_but_what_has_no_macos_build_can_be_installed_there() -> None:
    extras = tuple(extra for extra in EXTRAS if extra != "xformers")
    options = ("--python-platform", "aarch64-apple-darwin", "--python-version", "3.12")
    found = resolved(requirements(extras), *options)
    assert "torch" in found
    assert not {"bitsandbytes", "triton-windows"} & found.keys()


def test_the_line_of_the_readme_gets_a_torch_with_cuda_for_windows() -> None:
    options = ("--python-platform", "windows", "--python-version", "3.12")
    found = resolved("torch>=2.10,<2.14", *options, "--default-index", CUDA_WHEELS)
    assert found["torch"].endswith("+cu128")


def test_readme_doctor_and_project_ask_for_the_same_torch() -> None:
    (bounds,) = [one for one in PROJECT["dependencies"] if one.startswith("torch>")]
    line = f'"{bounds}" --index-url {CUDA_WHEELS}'
    assert line in INSTALL_CUDA_TORCH
    for name in ("README.md", "sdft/guide/README-ja.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f"python -m pip install {line}" in text, name
        assert set(re.findall(r"https://download\.pytorch\.org/\S*?cu\d+", text)) == {CUDA_WHEELS}
    (triton,) = PROJECT["optional-dependencies"]["triton-windows"]
    assert triton.partition(";")[0].strip() in TRITON_WINDOWS


def test_the_command_is_there_once_it_is_installed() -> None:
    """As `Scripts\\sdft.exe`, which the lines that activate the environment put on the path."""
    assert PROJECT["scripts"] == {"sdft": "sdft.cli.app:main"}
