"""What figures of training are measured with.

In: a device, and whether toys will do. Out: models with random weights and what trains them,
batches, and how fast they go.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sdft.jobs.benching.random_model import fixed_batch, random_model
from sdft.jobs.benching.rig import Rig, build_rig, settings_of
from sdft.models.bundle import ModelBundle
from sdft.train.batch import Batch
from tests.gpu.timing import step_times_s

FAST = {"mixed_precision": "bf16", "torch_compile": True}

LOW_MEMORY = {
    "mixed_precision": "bf16",
    "full_bf16": True,
    "optimizer_type": "AdamW8bit",
    "fused_backward_pass": True,
    "gradient_checkpointing": True,
}


@dataclass(frozen=True)
class Bench:
    """Where and how large things are measured."""

    device: torch.device
    quick: bool
    record: Callable[..., None]
    timing: Path
    """A file that is there while something is timed."""

    def model(self, family: str, *parts: str, seed: int = 0) -> ModelBundle:
        return random_model(
            family, device=self.device, parts=parts or ("unet",), toy=self.quick, seed=seed
        )

    def side_px(self, wanted: int) -> int:
        return 128 if self.quick else wanted

    def count(self, wanted: int) -> int:
        return 2 if self.quick else wanted

    def times_s(
        self, step: Callable[[int], object], *, num_steps: int, warm_up: int, alone: bool = True
    ) -> list[float]:
        """Time steps; whoever shares the device holds still while the file `timing` is there."""
        if alone:
            self.timing.touch()
            time.sleep(0.3)
        try:
            return step_times_s(
                step, num_steps=self.count(num_steps), warm_up=warm_up, device=self.device
            )
        finally:
            self.timing.unlink(missing_ok=True)


def rig_of(bench: Bench, family: str, *parts: str, seed: int = 0, **values: Any) -> Rig:
    if bench.quick:
        # Inductor takes minutes on a CPU.
        values |= {"dynamo_backend": "eager"} if values.get("torch_compile") else {}
    model = bench.model(family, "unet", "text_encoder", *parts, seed=seed)
    return build_rig(model, settings_of({"device": bench.device.type} | values))


def batches(bench: Bench, rig: Rig, *, size: int, side_px: int, **how: Any) -> list[Batch]:
    return [
        fixed_batch(
            rig.networks.bundle,
            batch_size=size,
            side_px=bench.side_px(side_px),
            seed=seed,
            **how,
        )
        for seed in range(2)
    ]


def images_per_s(
    bench: Bench, rig: Rig, *, size: int, side_px: int, steps: int = 12, warm_up: int = 3
) -> tuple[float, float]:
    """Return images a second (median) and the seconds that the first steps took."""
    size = bench.count(size)
    ready = batches(bench, rig, size=size, side_px=side_px)
    start_s = time.perf_counter()
    for number in range(bench.count(warm_up)):
        rig.stepper.update([ready[number % 2]])
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    first_s = time.perf_counter() - start_s
    times = bench.times_s(
        lambda number: rig.stepper.update([ready[number % 2]]), num_steps=steps, warm_up=0
    )
    return size / median(times), first_s


def let_go() -> None:
    """Free the model of the row before: hooks and optimizers hold their weights in circles."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
