"""A batch's masks are mirrored with their pictures, and its words carry their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdft.dataset.records import WordRules
from sdft.formats.caption_reader import CaptionReader
from sdft.formats.clip_tokens import ClipTokenizer
from sdft.train.batch import BatchMaker, TrainingItem
from sdft.train.latents import LatentSource
from sdft.train.noise import NoiseRecipe
from sdft.train.sampler import Step, Use

MASK = np.linspace(0, 1, 12, dtype=np.float16).reshape(3, 4)

LATENTS = {
    "plain": np.full((4, 3, 4), 1.0, dtype=np.float32),
    "mirrored": np.full((4, 3, 4), 2.0, dtype=np.float32),
}


def maker_of(items, *, weighted=False, read_mask=lambda key: MASK):
    return BatchMaker(
        items=items,
        latents=LatentSource(read_latents=LATENTS.__getitem__, holds_moments=False),
        reader=CaptionReader(tokenizer=ClipTokenizer("eos"), weighted=weighted),
        read_mask=read_mask,
        seed=3,
        noise=NoiseRecipe(),
        min_timestep=0,
        max_timestep=1000,
        max_train_steps=10,
    )


def item(**changes):
    values = {
        "key": "a.png",
        "subset": 0,
        "caption": "a (red:1.5) car",
        "words": WordRules(),
        "latents": "plain",
        "flipped_latents": "mirrored",
        "mask": "mask",
    }
    return TrainingItem(**(values | changes))


def batch_of(maker, num_uses):
    uses = tuple(Use(0, repeat) for repeat in range(num_uses))
    step = Step(dataset=0, bucket=(32, 24), uses=uses, effective_batch=num_uses)
    return maker.make(step, uses, step_number=0)


def test_a_mirrored_picture_has_its_mask_mirrored():
    batch = batch_of(maker_of([item()]), 16)
    is_mirrored = batch.latents_BCHW[:, 0, 0, 0] > 0.3
    assert 0 < is_mirrored.sum() < 16
    expected = torch.from_numpy(MASK.astype(np.float32))
    for mask, mirrored in zip(batch.masks_BHW, is_mirrored, strict=True):
        assert torch.equal(mask, expected.flip(-1) if mirrored else expected)


def test_an_item_without_a_mask_counts_everywhere_beside_one_that_has_one():
    maker = maker_of([item(), item(key="b.png", mask=None)])
    uses = (Use(0, 0), Use(1, 0))
    step = Step(dataset=0, bucket=(32, 24), uses=uses, effective_batch=2)
    masks = maker.make(step, uses, step_number=0).masks_BHW
    assert masks[1].min() == 1.0
    assert masks[0].min() == 0.0


def test_without_masks_and_weights_a_batch_has_none():
    batch = batch_of(maker_of([item(mask=None)], read_mask=None), 2)
    assert batch.masks_BHW is None
    assert batch.word_weights_BKS is None


def test_weights_of_words_stand_beside_their_tokens():
    batch = batch_of(maker_of([item()], weighted=True), 1)
    assert batch.ids_BKS.shape == batch.word_weights_BKS.shape == (1, 1, 77)
    assert batch.word_weights_BKS[0, 0, :5].tolist() == pytest.approx([1, 1, 1.5, 1, 1])
