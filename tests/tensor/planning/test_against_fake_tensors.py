"""The planned step beside torch's own, gone through with fake tensors."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch

from sdft.models.family import FAMILIES
from sdft.models.published import published_sizes
from sdft.planning.memory import MemoryQuestion, all_blocks, plan_memory, plan_sampling
from sdft.planning.optimizers import OptimizerNeeds
from tests.tensor.planning.fake_memory import fake_decoding_peak, fake_peak

NO_STATES = OptimizerNeeds(state_bytes=lambda shape: 0)
ALL: tuple[str, ...] = ()

CASES = {
    "float32": {"family": "sd1", "batch_size": 1, "side_px": 256},
    "float32, linear projections": {"family": "sd2-base", "batch_size": 2, "side_px": 192},
    "autocast": {"family": "sd1", "batch_size": 2, "side_px": 256, "half": True},
    "bf16 weights": {
        "family": "sd2-base",
        "batch_size": 4,
        "side_px": 256,
        "half": True,
        "weights": torch.bfloat16,
    },
    "all blocks twice": {"family": "sd1", "batch_size": 4, "side_px": 256, "checkpoints": ALL},
    "some blocks twice": {
        "family": "sd1",
        "batch_size": 4,
        "side_px": 256,
        "checkpoints": ("down_blocks.0", "up_blocks.3"),
    },
    "autocast, all twice": {
        "family": "sd1",
        "batch_size": 4,
        "side_px": 256,
        "half": True,
        "checkpoints": ALL,
    },
    "channels last": {
        "family": "sd1",
        "batch_size": 4,
        "side_px": 256,
        "channels_last": True,
    },
}


@pytest.mark.parametrize(
    ("width", "tolerance"), [(64, 0.10), pytest.param(320, 0.06, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", CASES)
def test_the_peak_is_that_of_torchs_own_pass(name, width, tolerance):
    case = {"half": False, "weights": torch.float32, "checkpoints": None} | CASES[name]
    case["batch_size"] *= 320 // width
    published = published_sizes(case["family"])
    sizes = replace(published.unet, widths=(width, 2 * width, 4 * width, 4 * width))
    checkpoints = case["checkpoints"]
    plan = plan_memory(
        MemoryQuestion(
            unet=sizes,
            text=published.text_encoder,
            heads_of=FAMILIES[case["family"]].heads_of,
            optimizer=NO_STATES,
            batch_size=case["batch_size"],
            width_px=case["side_px"],
            height_px=case["side_px"],
            on_gpu=False,
            half=case["half"],
            half_weights=case["weights"] == torch.bfloat16,
            channels_last=case.get("channels_last", False),
            checkpoints=frozenset(checkpoints or (all_blocks(sizes) if checkpoints == () else ())),
        )
    )
    planned = plan.peak_bytes - plan.parts["weights"]
    assert planned == pytest.approx(fake_peak(sizes=sizes, **case), rel=tolerance)


@pytest.mark.parametrize("side_px", [256, 512])
def test_drawing_takes_what_torchs_own_decoding_takes(side_px):
    published = published_sizes("sd1")
    question = MemoryQuestion(
        unet=replace(published.unet, widths=(32, 32, 32, 32)),
        text=published.text_encoder,
        heads_of=FAMILIES["sd1"].heads_of,
        optimizer=NO_STATES,
        batch_size=1,
        width_px=64,
        height_px=64,
        on_gpu=False,
    )
    standing = sum(4 * prod(shape) for shape in question.unet.tensors().values())
    standing += sum(4 * prod(shape) for shape in published.vae.tensors().values())
    planned = plan_sampling(question, published.vae, side_px, side_px) - standing
    decoding = fake_decoding_peak(published.vae, side_px=side_px)
    assert planned == pytest.approx(decoding, rel=0.06)
