"""Blocks and patterns decide which weights are trained, and how fast."""

from __future__ import annotations

import pytest

from sdft.errors import ConfigError
from sdft.train.parts import BLOCKS, RateWishes, block_of, rates_of

# A weight of every part of the U-Net, with its place in the original layout.
PLACES = [
    ("time_embedding.linear_1.weight", "TIME"),
    ("conv_in.weight", "IN00"),
    ("down_blocks.0.resnets.0.conv1.weight", "IN01"),
    ("down_blocks.0.attentions.1.proj_in.weight", "IN02"),
    ("down_blocks.0.downsamplers.0.conv.weight", "IN03"),
    ("down_blocks.1.resnets.0.conv1.weight", "IN04"),
    ("down_blocks.2.attentions.1.proj_in.weight", "IN08"),
    ("down_blocks.2.downsamplers.0.conv.weight", "IN09"),
    ("down_blocks.3.resnets.1.conv1.weight", "IN11"),
    ("mid_block.resnets.0.conv1.weight", "M00"),
    ("mid_block.attentions.0.proj_in.weight", "M01"),
    ("mid_block.resnets.1.conv1.weight", "M02"),
    ("up_blocks.0.resnets.0.conv1.weight", "OUT00"),
    ("up_blocks.0.upsamplers.0.conv.weight", "OUT02"),
    ("up_blocks.1.attentions.0.proj_in.weight", "OUT03"),
    ("up_blocks.3.resnets.2.conv1.weight", "OUT11"),
    ("conv_norm_out.weight", "END"),
    ("conv_out.weight", "END"),
]

NAMES = [f"unet.{name}" for name, _ in PLACES] + [
    "text_encoder.embeddings.token_embedding.weight",
    "text_encoder.encoder.layers.0.mlp.fc1.weight",
]
BASE = {"unet.": 1e-5, "text_encoder.": 1e-6}


def rates(**wishes):
    return rates_of(NAMES, base_rates=BASE, wishes=RateWishes(**wishes))


@pytest.mark.parametrize(("name", "block"), PLACES)
def test_a_weight_belongs_to_the_block_of_the_original_layout(name, block):
    assert block_of(name) == block
    assert block in BLOCKS


def test_there_are_as_many_blocks_as_rates():
    from sdft.config.training_objective import NUM_BLOCKS

    assert len(BLOCKS) == len(set(BLOCKS)) == NUM_BLOCKS == 29


def test_without_wishes_each_network_has_its_own_rate():
    found = rates()
    assert {found[name] for name in NAMES if name.startswith("unet.")} == {1e-5}
    assert {found[name] for name in NAMES if name.startswith("text_encoder.")} == {1e-6}


def test_frozen_blocks_and_patterns_have_no_rate():
    found = rates(freeze=("in04", "unet.*.attentions.*", "text_encoder.embeddings.*"))
    frozen = {name for name, rate in found.items() if rate == 0}
    assert frozen == {
        "unet.down_blocks.1.resnets.0.conv1.weight",
        *(name for name in NAMES if ".attentions." in name),
        "text_encoder.embeddings.token_embedding.weight",
    }


def test_the_last_pattern_that_fits_decides_and_freezing_wins():
    found = rates(
        by_name=(("unet.*", 2.0), ("unet.mid_block.*", 3.0), ("M01", 4.0)), freeze=("M02",)
    )
    assert found["unet.conv_in.weight"] == 2.0
    assert found["unet.mid_block.resnets.0.conv1.weight"] == 3.0
    assert found["unet.mid_block.attentions.0.proj_in.weight"] == 4.0
    assert found["unet.mid_block.resnets.1.conv1.weight"] == 0.0


def test_block_rates_go_to_the_blocks_in_order_and_names_go_before_them():
    found = rates(by_block=tuple(float(n) for n in range(29)), by_name=(("END", 0.5),))
    assert found["unet.time_embedding.linear_1.weight"] == 0.0
    assert found["unet.conv_in.weight"] == 1.0
    assert found["unet.mid_block.resnets.0.conv1.weight"] == 13.0
    assert found["unet.up_blocks.3.resnets.2.conv1.weight"] == 27.0
    assert found["unet.conv_out.weight"] == 0.5
    assert found["text_encoder.encoder.layers.0.mlp.fc1.weight"] == 1e-6


def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r'"unet\.mid_blok\.\*" fits no(.|\n)*unet\.mid_block'):
        rates(freeze=("unet.mid_blok.*",))
    with pytest.raises(ConfigError, match='"IN44" fits no'):
        rates(by_name=(("IN44", 1.0),))


def test_freezing_everything_is_refused():
    with pytest.raises(ConfigError, match="nothing is trained"):
        rates(freeze=("*",))
