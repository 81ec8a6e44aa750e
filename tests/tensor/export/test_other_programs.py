"""What sdft reads and writes means the same to diffusers and transformers, to the last bit."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from sdft.models.bundle import load_bundle
from tests.tensor.models.files import single_file

FAMILIES = ("sd1", "sd2-base", "sd2-v")


def outputs(unet, vae, text_encoder):
    """What the three networks make of fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 49406, (2, 77), generator=generator)
    ids[:, 0], ids[:, -1] = 49406, 49407
    latents = torch.randn(2, 4, 8, 16, generator=generator)
    pixels = torch.rand(1, 3, 64, 32, generator=generator) * 2 - 1
    for network in (unet, vae, text_encoder):
        # torch multiplies in another order where the weights want gradients, even under no_grad.
        network.requires_grad_(False)
    with torch.no_grad():
        contexts = text_encoder(ids).last_hidden_state
        return {
            "contexts": contexts,
            "noise": unet(latents, torch.tensor([1, 999]), contexts).sample,
            "moments": vae.encode(pixels).latent_dist.parameters,
            "pixels": vae.decode(latents).sample,
        }


def assert_equal(found, expected):
    difference = {name: (found[name] - expected[name]).abs().max().item() for name in expected}
    assert difference == dict.fromkeys(expected, 0.0)


def ours(path):
    bundle = load_bundle(path)
    return outputs(bundle.unet, bundle.vae, bundle.text_encoder)


def theirs(folder):
    return outputs(
        UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True),
        AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True),
        CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_and_a_converted_model_compute_what_diffusers_computes(toys, tmp_path, family):
    expected = theirs(toys[family])
    assert_equal(ours(toys[family]), expected)
    file = single_file(toys[family], tmp_path / "a.safetensors")
    assert_equal(ours(file), expected)
    folder = single_file(single_file(file, tmp_path / "b.ckpt"), tmp_path / "back")
    assert_equal(theirs(folder), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_our_single_file_with_a_local_config(toys, tmp_path, family):
    file = single_file(toys[family], tmp_path / "a.safetensors")
    pipeline = StableDiffusionPipeline.from_single_file(
        str(file), config=str(toys[family]), local_files_only=True
    )
    expected = theirs(toys[family])
    assert_equal(outputs(pipeline.unet, pipeline.vae, pipeline.text_encoder), expected)


@pytest.mark.parametrize("form", ["diffusers", "diffusers_safetensors"])
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_our_folder_as_a_pipeline(toys, tmp_path, family, form):
    file = single_file(toys[family], tmp_path / "a.ckpt")
    folder = single_file(file, tmp_path / "folder", form=form)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert_equal(outputs(pipeline.unet, pipeline.vae, pipeline.text_encoder), theirs(toys[family]))
    bundle = load_bundle(toys[family], parts=())
    assert pipeline.scheduler.config.prediction_type == bundle.prediction_type
    assert len(pipeline.tokenizer) == 49408
    assert pipeline.tokenizer.pad_token_id == bundle.tokenizer.pad_id


def test_a_folder_has_the_names_and_files_that_programs_of_the_4_x_era_expect(toys, tmp_path):
    folder = single_file(toys["sd1"], tmp_path / "folder", form="diffusers")
    state = torch.load(folder / "text_encoder" / "pytorch_model.bin", weights_only=True)
    assert all(name.startswith("text_model.") for name in state)
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {"tokenizer/vocab.json", "tokenizer/merges.txt", "model_index.json"} <= there
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    assert len(vocabulary) == 49408


@pytest.mark.parametrize("family", ["sd1", "sd2-v"])
def test_the_written_tokenizer_gives_the_tokens_that_we_give(toys, family):
    tokenizer = CLIPTokenizer.from_pretrained(toys[family] / "tokenizer", local_files_only=True)
    bundle = load_bundle(toys[family], parts=())
    for caption in ("", "a photo of a cat", "naïve café, 日本語 😀", "it's 2nd; <|endoftext|> x"):
        found = tokenizer(caption, padding="max_length", max_length=77, truncation=True).input_ids
        assert found == bundle.tokenizer.chunks(caption, 75)[0]
