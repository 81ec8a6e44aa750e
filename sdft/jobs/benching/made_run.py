"""A run without pictures: latents and contexts that were made up lie in a cache, the rest is real.

In: a rig and a folder. Out: a MadeRun, whose batches come from files as those of a run do.
B batch, C latent channels, H and W latent height and width, S tokens, D text width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.dataset.records import WordRules
from sdft.events import Emit, ignore
from sdft.jobs.benching.bare import BareLoop
from sdft.jobs.benching.peak import wait_for
from sdft.jobs.benching.rig import Rig
from sdft.jobs.learning_rate import build_lr_factor
from sdft.jobs.training.latents import DTYPE_NAMES
from sdft.jobs.training.recipes import caption_reader
from sdft.models.vae import LATENT_CHANNELS, PIXELS_PER_CELL
from sdft.train.batch import Batch, BatchMaker, TrainingItem
from sdft.train.contexts import Contexts
from sdft.train.latents import LatentSource
from sdft.train.loop import BetweenSteps, RunPlan, train
from sdft.train.lr import Factor
from sdft.train.meter import Meter
from sdft.train.noise import NoiseRecipe
from sdft.train.sampler import Group, Order
from sdft.train.state import Progress

MAX_STEPS = 100_000
"""Never reached: a stretch of the loop ends when it was long enough."""

_BATCHES_AN_EPOCH = 16
_TOKENS = 77
_ENOUGH = "measured enough"


@dataclass(frozen=True, kw_only=True)
class MadeRun:
    """Everything that the training loop needs."""

    rig: Rig
    plan: RunPlan
    maker: BatchMaker
    meter: Meter
    lr_factor: Factor

    @property
    def device(self) -> torch.device:
        device: torch.device = self.rig.networks.accelerator.device
        return device

    def batch(self) -> Batch:
        """Return the batch of the first step."""
        step = next(iter(self.plan.order.epoch(1)))
        return self.maker.make(step, step.uses, step_number=0)

    def loop_step_s(self, num_steps: int) -> float:
        """Run the training loop for a stretch; return the seconds a step.

        One more step comes first and does not count: nothing was prepared for it.
        """
        first = self.meter.step
        marks_s: list[float] = []

        def after_step(meter: Meter) -> None:
            if meter.step - first in (1, num_steps + 1):
                wait_for(self.device)
                marks_s.append(time.perf_counter())

        def stop_reason() -> str | None:
            return _ENOUGH if self.meter.step - first > num_steps else None

        reason = train(
            plan=self.plan,
            maker=self.maker,
            stepper=self.rig.stepper,
            lr_factor=self.lr_factor,
            meter=self.meter,
            between=BetweenSteps(
                after_step=after_step, after_epoch=lambda meter: None, stop_reason=stop_reason
            ),
        )
        assert reason == _ENOUGH, "the loop came to its end"
        start_s, end_s = marks_s
        return (end_s - start_s) / num_steps

    def bare_loop(self) -> BareLoop | None:
        """Return the same arithmetic without the engine; none where the engine does other."""
        stepper, networks = self.rig.stepper, self.rig.networks
        if stepper.rounding is not None or stepper.fused is not None or networks.trains_text:
            return None
        return BareLoop(networks, stepper, self.batch())

    def bare_step_s(self, step: Callable[[int], object], num_steps: int) -> float:
        """Do so many steps on their own; return the seconds a step."""
        wait_for(self.device)
        start_s = time.perf_counter()
        for number in range(num_steps):
            step(number)
        wait_for(self.device)
        return (time.perf_counter() - start_s) / num_steps


def made_run(
    rig: Rig, folder: Path, *, side_px: int, batch_size: int, emit: Emit = ignore
) -> MadeRun:
    """Fill a cache in `folder` and return the run that reads it; `emit` hears of its steps."""
    settings, networks = rig.settings, rig.networks
    num_images = _BATCHES_AN_EPOCH * batch_size
    captions = [f"picture {number} of a cat on a chair" for number in range(num_images)]
    store = TensorStore(folder / "made")
    text_dtype = next(networks.plain_text_encoder.parameters()).dtype
    context_width = networks.plain_unet.config.cross_attention_dim
    cells = side_px // PIXELS_PER_CELL
    draws = np.random.default_rng(1)
    with StoreWriter(store) as writer:
        for number in range(num_images):
            latents_CHW = draws.standard_normal((LATENT_CHANNELS, cells, cells), np.float32)
            writer.add(_latents_key(number), latents_CHW, settings.cache_dtype)
            contexts_SD = draws.standard_normal((_TOKENS, context_width), np.float32)
            writer.add(_context_key(number), contexts_SD, DTYPE_NAMES[text_dtype])
    everything = np.arange(num_images)
    once = np.ones_like(everything)
    order = Order(
        groups=(Group(dataset=0, bucket=(side_px, side_px), placements=everything, repeats=once),),
        effective_batch=[batch_size],
        seed=settings.seed or 0,
    )
    plan = RunPlan(
        order=order,
        batch_size=[batch_size],
        total_steps=MAX_STEPS,
        num_epochs=order.epochs_for(MAX_STEPS),
    )
    maker = BatchMaker(
        items=[_item(number, captions[number]) for number in range(num_images)],
        latents=LatentSource(read_latents=store.read, holds_moments=False),
        reader=caption_reader(settings, networks.bundle.tokenizer),
        read_mask=None,
        seed=order.seed,
        noise=NoiseRecipe(),
        min_timestep=settings.min_timestep,
        max_timestep=settings.max_timestep,
        max_train_steps=MAX_STEPS,
        contexts=None
        if networks.trains_text
        else Contexts(
            read=store.read,
            fetch=store.fetch,
            keys={caption: _context_key(number) for number, caption in enumerate(captions)},
            dtype=text_dtype,
        ),
    )
    device = networks.accelerator.device
    return MadeRun(
        rig=rig,
        plan=plan,
        maker=maker,
        meter=Meter(Progress(), emit=emit, device=device),
        lr_factor=build_lr_factor(settings, MAX_STEPS),
    )


def _item(number: int, caption: str) -> TrainingItem:
    return TrainingItem(
        key=f"{number}.png",
        subset=0,
        caption=caption,
        words=WordRules(),
        latents=_latents_key(number),
        flipped_latents=None,
    )


def _latents_key(number: int) -> str:
    return f"{number:032x}"


def _context_key(number: int) -> str:
    return f"c{number:031x}"
