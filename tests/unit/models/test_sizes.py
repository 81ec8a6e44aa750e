"""Sizes come from shapes; names that claim too much, and settings that do not fit, are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft.errors import DataError
from sdft.export.layout import original_tensors
from sdft.formats.safetensors_write import write_safetensors
from sdft.models import keymap
from sdft.models.family import FAMILIES
from sdft.models.open import open_model
from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes
from tests.unit.formats.hostile import write_zeros, zeros

UNET = UNetSizes(
    widths=(32, 64, 96),
    layers_per_block=3,
    has_attention=(False, True, True),
    context_width=16,
    linear_projection=True,
    in_channels=4,
    out_channels=4,
)
VAE = VaeSizes(widths=(32, 64), layers_per_block=1, latent_channels=4)
TEXT = TextSizes(width=16, mlp_width=32, num_layers=2, vocabulary_size=49408, positions=77)


@pytest.mark.parametrize("sizes", [UNET, VAE, TEXT])
def test_sizes_come_back_from_the_shapes_that_they_give(sizes):
    assert type(sizes).of(sizes.tensors()) == sizes


def test_any_number_of_levels_and_layers_is_mapped_there_and_back():
    original, rest = keymap.unet_to_original(zeros(UNET.tensors()), linear_projection=True)
    assert not rest
    back, rest = keymap.unet_to_diffusers(original)
    assert not rest
    assert {name: tensor.shape for name, tensor in back.items()} == UNET.tensors()
    original, rest = keymap.vae_to_original(zeros(VAE.tensors()))
    assert not rest
    back, rest = keymap.vae_to_diffusers(original)
    assert not rest
    assert {name: tensor.shape for name, tensor in back.items()} == VAE.tensors()


def test_names_that_no_layout_knows_are_given_back():
    stranger = zeros({"stranger.weight": (1,), "input_blocks.1.0.weight.of.what": (1,)})
    assert keymap.unet_to_diffusers(stranger)[1].keys() == {"stranger.weight"}
    assert keymap.vae_to_original(stranger)[1].keys() == stranger.keys()


@pytest.mark.parametrize("number", ["9999", "9" * 5000])
def test_a_name_that_claims_very_many_layers_is_refused_at_once(tmp_path, number):
    unet = "model.diffusion_model."
    shapes = {
        f"{unet}input_blocks.0.0.weight": (32, 4, 3, 3),
        f"{unet}input_blocks.{number}.0.in_layers.0.weight": (32,),
    }
    source = open_model(write_zeros(tmp_path / "a", shapes))
    with pytest.raises(DataError):
        source.check()


def folder_of(path: Path) -> Path:
    """Write a diffusers folder of zeros."""
    from sdft.jobs.convert import run_convert

    sizes = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}
    weights = {part: zeros(size.tensors()) for part, size in sizes.items()}
    file = path.with_suffix(".safetensors")
    with file.open("wb") as stream:
        tensors = original_tensors(weights, {}, FAMILIES["sd2-v"])
        write_safetensors(stream, tensors, {}, with_hash=False)
    run_convert(file, path, v_parameterization=True, emit=lambda event: None)
    return path


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "attention_head_dim", [1, 2]),
        ("unet", "attention_head_dim", 7),
        ("unet", "attention_head_dim", "8"),
        ("text_encoder", "num_attention_heads", 3),
        ("text_encoder", "hidden_act", "relu"),
    ],
)
def test_a_setting_of_a_folder_that_does_not_fit_is_named(tmp_path, part, key, value):
    folder = folder_of(tmp_path / "model")
    open_model(folder).check()
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(DataError, match=f"config.json has {key} = "):
        open_model(folder).check()


def test_channels_that_cannot_be_normalised_are_named(tmp_path):
    sizes = VaeSizes(widths=(33, 64), layers_per_block=1, latent_channels=4)
    tensors = zeros({f"first_stage_model.{n}": s for n, s in keymap_of(sizes).items()})
    unet, _ = keymap.unet_to_original(zeros(UNET.tensors()), linear_projection=True)
    tensors |= {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
    with (tmp_path / "a").open("wb") as file:
        write_safetensors(file, tensors, {}, with_hash=False)
    with pytest.raises(DataError, match=r"\[33\] channels cannot be normalised"):
        open_model(tmp_path / "a").check(("vae",))


def keymap_of(sizes: VaeSizes) -> dict[str, tuple[int, ...]]:
    original, _ = keymap.vae_to_original(zeros(sizes.tensors()))
    return {name: tensor.shape for name, tensor in original.items()}
