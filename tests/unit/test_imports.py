"""The guards of the layers: what may import what, and what a light module may bring along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sdft
from sdft.cli.app import COMMANDS

ROOT = Path(sdft.__file__).parent

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "bitsandbytes", "onnxruntime")

NOT_FOR_HELP = (*HEAVY, "numpy", "PIL", "textual", "safetensors", "tokenizers", "psutil")

LIGHT_PARTS = ("config", "formats", "dataset", "planning", "jobs/planning", "views", "tui", "cli")
"""Parts in which every module is light."""

LIGHT_MODULES = (
    "jobs.doctor",
    "jobs.environment",
    "jobs.bucket",
    "jobs.learning_rate",
    "jobs.ordering",
    "jobs.plan",
    "jobs.splitting",
    "jobs.train",
    "jobs.words",
    "jobs.bundle",
    "jobs.sample",
    "jobs.sample_files",
    "jobs.scrubbing",
)


def modules_of(part: str) -> list[str]:
    names = []
    for path in sorted((ROOT / part).rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names.append(".".join(part for part in parts if part != "__init__"))
    return names


def top_level() -> list[str]:
    return [f"sdft.{path.stem}" for path in ROOT.glob("*.py") if not path.stem.startswith("_")]


def brought_along(code: str, banned: tuple[str, ...]) -> list[str]:
    """Run code in a fresh process and return which banned packages it imported."""
    ending = f"\nimport sys\nsys.stderr.write('|'.join(sorted(set({banned!r}) & set(sys.modules))))"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, "-c", code + ending],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.split("|") if done.stderr else []


@pytest.mark.parametrize("part", LIGHT_PARTS)
def test_a_light_part_brings_nothing_heavy_along(part):
    code = "".join(f"import {module}\n" for module in modules_of(part))
    assert brought_along(code, HEAVY) == []


def test_the_ground_floor_and_the_light_jobs_bring_nothing_heavy_along():
    modules = [*top_level(), *(f"sdft.{name}" for name in LIGHT_MODULES)]
    assert brought_along("".join(f"import {module}\n" for module in modules), HEAVY) == []


def test_the_config_needs_neither_numpy_nor_pillow():
    code = "".join(f"import {module}\n" for module in modules_of("config"))
    assert brought_along(code, NOT_FOR_HELP) == []


HELPS = [["--help"], *([name, "--help"] for name in COMMANDS), ["train", "--help-all"]]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_no_help_brings_anything_slow_along(words):
    code = f"""
import contextlib, io
from sdft.cli.app import run
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert run({words!r}) == 0
assert "Usage: sdft" in out.getvalue()
"""
    assert brought_along(code, NOT_FOR_HELP) == []


def test_an_import_only_goes_down_the_layers(tmp_path):
    pyproject = ROOT.parent / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("only in a source tree")
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports("
    code += f"config_filename={str(pyproject)!r}, cache_dir=None))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=ROOT.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
