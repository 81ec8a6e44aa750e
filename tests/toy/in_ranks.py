"""Runs command lines of `sdft` in several processes, for the tests of what they do together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import sdft

SERVER = Path(__file__).with_name("rank_server.py")

SIZES = ((128, 128),) * 3 + ((256, 64),) * 2 + ((64, 256),) * 2 + ((192, 64),)
"""So many uses of each bucket that steps of four leave a remainder in all of them."""


def long(*values: Any, id: str | None = None) -> Any:
    """Return a case of a test that is left to the long suite."""
    return pytest.param(*values, marks=pytest.mark.long, id=id)


@dataclass
class Ranks:
    """The process that has torch loaded, and forks."""

    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        root = str(Path(sdft.__file__).parent.parent)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._answer() == {"ready": True}

    def run(self, argv: Sequence[str], *, ranks: int, log: Path, **how: Any) -> Ran:
        order = {"argv": list(argv), "ranks": ranks, "log": str(log), **how}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        said = [Path(f"{log}.{rank}").read_text("utf-8", "replace") for rank in range(ranks)]
        return Ran(codes=answer["codes"], ended_s=answer["ended_s"], said=said)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@dataclass(frozen=True)
class Ran:
    """How the processes of one command line ended."""

    codes: list[int | None]
    ended_s: list[float | None]
    """When each process ended; None where it had to be ended."""
    said: list[str]
    """Of each process: what it printed."""

    def require(self, *codes: int | None) -> Ran:
        """Check the exit codes, by rank."""
        assert tuple(self.codes) == codes, "\n---\n".join(self.said)
        return self


def draw_images(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> Path:
    """Write pictures of these sizes with captions, each its own."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(5)
    for number, (width, height) in enumerate(sizes):
        pixels = draws.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"picture {number}", "utf-8")
    return folder


@dataclass(frozen=True)
class Ground:
    """What the runs of a module share: a model, pictures, a cache. Each has its own folder."""

    folder: Path
    server: Ranks

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def write_config(
        self,
        out: Path,
        *,
        batch_size: int = 1,
        resolution_px: int = 128,
        steps_px: int = 64,
        **settings: Any,
    ) -> Path:
        """Write a run's config and dataset file into its folder; return the config."""
        out.mkdir(parents=True, exist_ok=True)
        values = {
            "pretrained_model_name_or_path": str(self.model),
            "dataset_config": str(out / "dataset.toml"),
            "output_dir": str(out / "out"),
            "output_name": "toy",
            "cache_dir": str(self.folder / "cache"),
            "device": "cpu",
            "seed": 3,
            "allow_sleep": True,
            "optimizer_type": "SGDNesterov",
            "optimizer_args": ["momentum=0", "nesterov=False"],
            "learning_rate": 0.01,
            "lr_scheduler": "constant",
            "max_train_epochs": 1,
            "no_rolling_state": True,
        }
        images = settings.pop("image_dir", self.images)
        values |= settings
        given = {name: value for name, value in values.items() if value is not None}
        lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
        (out / "config.toml").write_text("\n".join(lines) + "\n", "utf-8")
        (out / "dataset.toml").write_text(
            "[general]\nenable_bucket = true\ncaption_extension = '.txt'\n[[datasets]]\n"
            f"resolution = {resolution_px}\nmin_bucket_reso = 64\nmax_bucket_reso = 256\n"
            f"bucket_reso_steps = {steps_px}\nbatch_size = {batch_size}\n[[datasets.subsets]]\n"
            f"image_dir = {json.dumps(str(images))}\nnum_repeats = 2\n",
            "utf-8",
        )
        return out / "config.toml"

    def train(self, out: Path, *, ranks: int, how: Any = None, **settings: Any) -> Ran:
        """Train in a folder of its own; `how` goes to the server."""
        config = self.write_config(out, **settings)
        return self.again(out, config, ranks=ranks, **(how or {}))

    def again(self, out: Path, config: Path, *words: str, ranks: int, **how: Any) -> Ran:
        argv = ["train", str(config), *words]
        return self.server.run(argv, ranks=ranks, log=out / "log", **how)


def events(folder: Path, name: str = "toy") -> list[dict[str, Any]]:
    file = folder / "out" / f"{name}.run" / "events.jsonl"
    lines = file.read_text("ascii").splitlines(keepends=True)
    # The last line may be in work.
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(folder: Path) -> list[dict[str, Any]]:
    return [one for one in events(folder) if one["event"] == "StepDone"]


def losses(folder: Path) -> dict[int, float]:
    return {one["step"]: one["loss"] for one in steps(folder)}


def weights(folder: Path) -> dict[str, Any]:
    """Return the U-Net that a run saved."""
    saved = folder / "out" / "toy" / "unet" / "diffusion_pytorch_model.safetensors"
    return load_file(saved)


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far apart two gradients are, as a share of the first."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))
