"""The stages of `sdft bench`: each measures a part of the engine beside the bare minimum for it.

In: a place to measure in. Out: rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from sdft.config.training import TrainingSettings
from sdft.events import Emit, Notice
from sdft.jobs.benching.encoding import encode
from sdft.jobs.benching.figures import BenchRow, process_peak_bytes, reset_peak
from sdft.jobs.benching.made_run import MadeRun, made_run
from sdft.jobs.benching.peak import peak_of, unet_flops
from sdft.jobs.benching.random_model import random_model
from sdft.jobs.benching.rig import Rig, build_rig
from sdft.jobs.benching.saving import save
from sdft.models.bundle import ModelBundle
from sdft.train.batch import BatchMaker
from sdft.train.loop import batches_ahead
from sdft.train.sampler import Step

STRETCH_S = 3.0
"""A stretch of steps lasts about so long: a slow device does one step, a fast one many."""

MAX_STRETCH_STEPS = 20
MAX_DATA_BATCHES = 200
ROUNDS = 5
"""Stretches of each kind, in turn; their median counts."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is measured, and where."""

    settings: TrainingSettings
    family: str
    """Of the published sizes."""
    toy: bool
    side_px: int
    batch_size: int
    device: torch.device
    folder: Path
    """For files that are written on the way; empty, and emptied again."""
    emit: Emit

    def model(self, *parts: str) -> ModelBundle:
        return random_model(self.family, device=self.device, parts=parts, toy=self.toy)

    def rig(self, *more: str) -> Rig:
        """Return a U-Net and a text encoder, and what else is named, on their device."""
        bundle = self.model("unet", "text_encoder", *more)
        return build_rig(bundle, self.settings, emit=self.emit)


def data(place: Place) -> list[BenchRow]:
    """Batches as fast as they can be made, beside reading and drawing what they consist of."""
    with tempfile.TemporaryDirectory(dir=place.folder) as name:
        rig = place.rig()
        run = made_run(rig, Path(name), side_px=place.side_px, batch_size=place.batch_size)
        rates: list[float] = []
        bare_rates: list[float] = []
        # Of whole epochs a stretch has as many as there is time for; the first one warms up.
        steps = run.plan.order.epoch(1)
        num_batches = min(len(steps), MAX_DATA_BATCHES)
        for round_number in range(ROUNDS + 1):
            start_s = perf_counter()
            made = batches_ahead(run.plan, run.maker, steps, meter=run.meter)
            num_images = sum(len(batch) for _, batches in made for batch in batches)
            middle_s = perf_counter()
            for step in steps.between(0, num_batches):
                _bare_batch(run.maker, step)
            end_s = perf_counter()
            if round_number:
                rates.append(num_images / (middle_s - start_s))
                bare_rates.append(num_images / (end_s - middle_s))
    return [
        BenchRow(
            name="data: batches from the cache",
            value=median(rates),
            unit="images/s",
            against="reading the same tensors and drawing as much noise",
            ratio=median(rates) / median(bare_rates),
        )
    ]


def _bare_batch(maker: BatchMaker, step: Step) -> None:
    items = [maker.items[use.placement] for use in step.uses]
    read = [torch.from_numpy(maker.latents.read_latents(item.latents or "")) for item in items]
    latents_BCHW = torch.stack(read).float()
    torch.randn(latents_BCHW.shape)
    if maker.contexts is not None:
        keys = [maker.contexts.keys[item.caption] for item in items]
        torch.stack([torch.from_numpy(maker.contexts.read(key)) for key in keys])


def step(place: Place) -> list[BenchRow]:
    """The training loop, beside the bare loop with the same networks and optimizer."""
    with tempfile.TemporaryDirectory(dir=place.folder) as name:
        rig = place.rig()
        if not rig.networks.trains_text:
            rig.networks.park_text_encoder()
        run = made_run(rig, Path(name), side_px=place.side_px, batch_size=place.batch_size)
        bare = run.bare_loop()
        if bare is None:
            message = "these settings change what a step computes, so the bare loop is left out"
            place.emit(Notice(severity="info", topic="bench", message=message))
        reset_peak(place.device)
        loop_s, bare_s = alternate(run, None if bare is None else bare.step)
    rate = place.batch_size / loop_s
    peak = peak_of(place.device, _arithmetic_dtype(rig))
    flops = unet_flops(rig.networks.bundle.configs["unet"], place.side_px)
    rows = [
        BenchRow(
            name="step: the training loop",
            value=rate,
            unit="images/s",
            against="" if bare_s is None else "the bare loop: same networks, fixed tensors",
            ratio=None if bare_s is None else bare_s / loop_s,
        )
    ]
    if bare_s is not None:
        rows.append(
            BenchRow(name="step: the bare loop", value=place.batch_size / bare_s, unit="images/s")
        )
    rows.append(
        BenchRow(
            name="step: arithmetic of the U-Net",
            value=rate * flops / 1e12,
            unit="TFLOP/s",
            against=f"{peak.flops / 1e12:.4g} TFLOP/s, {peak.source}",
            ratio=rate * flops / peak.flops,
        )
    )
    return [*rows, _memory_row(place)]


def alternate(
    run: MadeRun, bare_step: Callable[[int], object] | None, *, rounds: int = ROUNDS
) -> tuple[float, float | None]:
    """Return the seconds a step of the loop and of the bare one, measured in turn."""
    first_s = run.loop_step_s(1)
    # The first stretch also compiles; the second says how long a step is.
    first_s = min(first_s, run.loop_step_s(1))
    num_steps = max(1, min(MAX_STRETCH_STEPS, int(STRETCH_S / first_s)))
    loop_s: list[float] = []
    bare_s: list[float] = []
    if bare_step is not None:
        run.bare_step_s(bare_step, 1)
    for _ in range(rounds):
        loop_s.append(run.loop_step_s(num_steps))
        if bare_step is not None:
            bare_s.append(run.bare_step_s(bare_step, num_steps))
    return median(loop_s), median(bare_s) if bare_s else None


def _arithmetic_dtype(rig: Rig) -> torch.dtype:
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return half.get(rig.networks.accelerator.mixed_precision, torch.float32)


def _memory_row(place: Place) -> BenchRow:
    if place.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(place.device)
        return BenchRow(name="step: peak memory of tensors", value=peak, unit="bytes")
    return BenchRow(
        name="step: peak memory of the process", value=process_peak_bytes(), unit="bytes"
    )


def encode_stage(place: Place) -> list[BenchRow]:
    """Caching pictures, beside the VAE alone."""
    dtype = torch.float16 if _encodes_in_half(place) else torch.float32
    vae = place.model("vae").vae.to(place.device, dtype)
    with tempfile.TemporaryDirectory(dir=place.folder) as name:
        return encode(
            vae,
            Path(name),
            side_px=place.side_px,
            batch_size=place.settings.vae_batch_size,
            dtype=dtype,
        )


def _encodes_in_half(place: Place) -> bool:
    return place.device.type == "cuda" and not place.settings.no_half_vae


def save_stage(place: Place) -> list[BenchRow]:
    """A state and a checkpoint, beside writing as many bytes."""
    rig = place.rig("vae")
    with tempfile.TemporaryDirectory(dir=place.folder) as name:
        run = made_run(rig, Path(name), side_px=place.side_px, batch_size=place.batch_size)
        # An optimizer has a state only after a step.
        rig.stepper.update([run.batch()])
        return save(rig, Path(name), side_px=place.side_px, emit=place.emit)


STAGES: Mapping[str, Callable[[Place], list[BenchRow]]] = {
    "data": data,
    "encode": encode_stage,
    "step": step,
    "save": save_stage,
}
