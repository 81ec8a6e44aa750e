"""Measures a toy in one of several processes and prints what came out, for test_validation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from sdft.dataset.records import WordRules
from sdft.formats.caption_reader import CaptionReader
from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks
from sdft.train.batch import BatchMaker, TrainingItem
from sdft.train.latents import LatentSource
from sdft.train.noise import NoiseRecipe
from sdft.train.objective import LossRecipe
from sdft.train.sampler import Group
from sdft.train.schedule import alphas_cumprod
from sdft.train.step import Objective
from sdft.train.validation import Examiner, fixed_timesteps, portions
from sdft.train.weighting import WeightRecipe

NUM_IMAGES = 5

WORDS = WordRules(
    caption_separator=",",
    shuffle_caption=False,
    keep_tokens=0,
    keep_tokens_separator="",
    secondary_separator=None,
    enable_wildcard=False,
    caption_prefix=None,
    caption_suffix=None,
    caption_dropout_rate=0.0,
    caption_dropout_every_n_epochs=0,
    caption_tag_dropout_rate=0.0,
    token_warmup_min=1,
    token_warmup_step=0.0,
)


def examiner_of(bundle, *, batch_size=2):
    """Return what measures five made-up images of two buckets at three timesteps."""
    latents = {
        f"{number}": torch.randn(4, 16, 16 + 8 * (number % 2), generator=seeded(number)).numpy()
        for number in range(NUM_IMAGES)
    }
    items = [
        TrainingItem(
            key=key,
            subset=0,
            caption=f"picture {key}",
            words=WORDS,
            latents=key,
            flipped_latents=None,
        )
        for key in latents
    ]
    maker = BatchMaker(
        items=items,
        latents=LatentSource(read_latents=latents.__getitem__, holds_moments=False),
        reader=CaptionReader(tokenizer=bundle.tokenizer),
        read_mask=None,
        seed=3,
        noise=NoiseRecipe(),
        min_timestep=0,
        max_timestep=1000,
        max_train_steps=1,
    )
    groups = [
        Group(
            dataset=0,
            bucket=(128 + 64 * side, 128),
            placements=[n for n in range(NUM_IMAGES) if n % 2 == side],
            repeats=[7] * (3 - side),
        )
        for side in (0, 1)
    ]
    timesteps = fixed_timesteps(3, min_timestep=0, max_timestep=1000)
    return Examiner(maker=maker, portions=portions(groups, [batch_size]), timesteps=timesteps)


def seeded(number):
    return torch.Generator().manual_seed(number)


def losses_of(bundle):
    objective = Objective(
        prediction_type="epsilon",
        alphas_bar_T=alphas_cumprod(),
        loss=LossRecipe(),
        weights=WeightRecipe(),
    )

    def losses(batch):
        contexts_BSD = encode_chunks(
            bundle.text_encoder, batch.ids_BKS, clip_skip=None, tokenizer=bundle.tokenizer
        )
        return objective.losses(bundle.unet, batch, contexts_BSD)

    return losses


def measure(bundle, accelerator, **changes):
    return examiner_of(bundle, **changes).measure(
        losses_of(bundle),
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        reduce_sum=lambda losses: accelerator.reduce(losses, reduction="sum"),
        device=accelerator.device,
    )


def main(model: Path) -> None:
    accelerator = Accelerator(cpu=True)
    losses_NT = measure(load_bundle(model), accelerator)
    if accelerator.is_main_process:
        record = {"processes": accelerator.num_processes, "losses": losses_NT.tolist()}
        print("MEASURED " + json.dumps(record))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
