"""`sdft convert` and `sdft verify` from the outside: what is said of files that are no model."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.export.layout import original_tensors
from sdft.formats.lazy import LazyTensor
from sdft.formats.safetensors_write import write_safetensors
from sdft.models.family import FAMILIES
from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes
from tests.unit.formats.hostile import (
    Zeros,
    described_tensor,
    write_raw_header,
    write_zeros,
    write_zip,
)

DATA_ERROR = 4
USER_ERROR = 2
UNET = "model.diffusion_model."


def small_sd1(path: Path, in_channels: int = 4) -> Path:
    """Write an SD 1.x of zeros with few channels."""
    sizes = {
        "unet": UNetSizes(
            widths=(32, 32, 32, 32),
            layers_per_block=2,
            has_attention=(True, True, True, False),
            context_width=16,
            linear_projection=False,
            in_channels=in_channels,
            out_channels=4,
        ),
        "vae": VaeSizes(widths=(32, 32, 32, 32), layers_per_block=2, latent_channels=4),
        "text_encoder": TextSizes(
            width=16, mlp_width=32, num_layers=2, vocabulary_size=49408, positions=77
        ),
    }
    weights = {
        part: {n: LazyTensor.of(Zeros(), n, "F16", shape) for n, shape in size.tensors().items()}
        for part, size in sizes.items()
    }
    tensors = original_tensors(weights, {}, FAMILIES["sd1"])
    with path.open("wb") as file:
        write_safetensors(file, tensors, {}, with_hash=False)
    return path


class Harmful:
    def __reduce__(self):
        return os.system, ("touch RAN",)


def lora(folder):
    names = ("lora_unet_down_blocks_0.lora_up.weight", "lora_unet_down_blocks_0.lora_down.weight")
    return write_zeros(folder / "lora.safetensors", dict.fromkeys(names, (4, 4)))


def sdxl(folder):
    names = (f"{UNET}input_blocks.0.0.weight", f"{UNET}label_emb.0.0.weight")
    return write_zeros(folder / "sdxl.safetensors", dict.fromkeys(names, (4, 4, 3, 3)))


def inpainting(folder):
    return small_sd1(folder / "inpainting.safetensors", in_channels=9)


def vae_alone(folder):
    return write_zeros(
        folder / "vae.safetensors",
        {"decoder.conv_in.weight": (4, 4, 3, 3), "encoder.conv_in.weight": (4, 4)},
    )


def truncated(folder):
    path = small_sd1(folder / "truncated.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def lying(folder):
    entry = {"dtype": "F32", "shape": [2**30, 2**20], "data_offsets": [0, 8]}
    return write_raw_header(folder / "lying.safetensors", {"w": entry}, bytes(8))


def code_in_pickle(folder):
    raw = pickle.dumps({"state_dict": {"w": Harmful()}}, protocol=4)
    return write_zip(folder / "evil.ckpt", raw)


def zip_bomb(folder):
    data = {"0": bytes(2**24)}
    return write_zip(folder / "b.ckpt", described_tensor(), data, compression=zipfile.ZIP_DEFLATED)


def pickle_bomb(folder):
    claims = described_tensor(shape=(10**13,), strides=(0,))
    return write_zip(folder / "bomb.ckpt", claims, {"0": bytes(16)})


def random_bytes(folder):
    path = folder / "random.safetensors"
    path.write_bytes(os.urandom(64) * 100)
    return path


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def no_vae(folder):
    from safetensors.numpy import load_file, save_file

    path = small_sd1(folder / "whole.safetensors")
    state = {n: t for n, t in load_file(path).items() if not n.startswith("first_stage_model.")}
    save_file(state, folder / "novae.safetensors")
    return folder / "novae.safetensors"


def web_page(folder):
    path = folder / "model.ckpt"
    path.write_text("<!DOCTYPE html><title>404</title>")
    return path


BAD = [
    (lora, "this is a LoRA: differences to a model"),
    (sdxl, "this is an SDXL or unCLIP model"),
    (inpainting, "this is an inpainting model (9 input channels"),
    (vae_alone, "this is a VAE alone"),
    (truncated, "cut off: it says that it has"),
    (lying, "the header of this safetensors file is wrong"),
    (code_in_pickle, f'nothing in it was run: it contains "{os.name}.system"'),
    (zip_bomb, "it contains the packed entry"),
    (pickle_bomb, "a tensor that is larger than its storage"),
    (random_bytes, "this is no model file"),
    (empty_folder, "this folder is no diffusers model"),
    (no_vae, "this model has no VAE"),
    (web_page, "this is a web page, not a model"),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_no_usable_model_is_named_for_what_it_is(sdft, tmp_path, make, words):
    path = make(tmp_path)
    there = sorted(tmp_path.iterdir())
    converted = sdft("convert", path, "out.safetensors", "--quiet")
    assert (converted.code, converted.out) == (DATA_ERROR, "")
    assert words in converted.err
    assert path.name in converted.err
    verified = sdft("verify", path, "--quiet", "--json")
    assert verified.code == DATA_ERROR
    assert words in json.dumps(verified.result["problems"], ensure_ascii=False).replace('\\"', '"')
    assert sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("lost", ["folder", "config.json", "weights"])
def test_a_folder_with_a_part_missing_says_which(sdft, tmp_path, part, lost):
    assert sdft("convert", small_sd1(tmp_path / "a.safetensors"), "model", "--quiet").code == 0
    if lost == "folder":
        shutil.rmtree(tmp_path / "model" / part)
        words = {"unet": "no U-Net", "vae": "no VAE", "text_encoder": "no text encoder"}[part]
    elif lost == "config.json":
        (tmp_path / "model" / part / "config.json").unlink()
        words = "this file of the model is missing"
    else:
        next((tmp_path / "model" / part).glob("*.safetensors")).unlink()
        words = "the weights of the"
    ran = sdft("convert", "model", "out.safetensors", "--quiet")
    assert ran.code == DATA_ERROR
    assert words in ran.err
    assert not (tmp_path / "out.safetensors").exists()


def test_a_model_that_is_not_there_and_a_copy_that_is_are_user_s_errors(sdft, tmp_path):
    model = small_sd1(tmp_path / "a.safetensors")
    gone = sdft("convert", "gone.safetensors", "b.safetensors")
    assert gone.code == USER_ERROR
    assert "there is no model here" in gone.err
    assert sdft("convert", model, "b.safetensors", "--quiet").code == 0
    again = sdft("convert", model, "b.safetensors", "--quiet")
    assert again.code == USER_ERROR
    assert "--overwrite" in again.err
    assert sdft("convert", model, "b.safetensors", "--quiet", "--overwrite").code == 0


def test_the_options_of_sd_scripts_converter_are_accepted(sdft, tmp_path):
    model = small_sd1(tmp_path / "a.safetensors")
    words = ("--v1", "--fp16", "--epoch", 2, "--global_step", 10, "--reference_model", "x/y")
    ran = sdft("convert", model, "b.ckpt", *words, "--json")
    assert ran.code == 0
    assert ran.result["form"] == "ckpt"
    assert ran.result["problems"] == []
    metadata = str({"modelspec.author": "me"})
    words = ("--use_safetensors", "--save_precision_as", "bf16", "--metadata", metadata)
    assert sdft("convert", "b.ckpt", "folder", *words, "--quiet").code == 0
    told = sdft("verify", "folder", "--json", "--quiet").result
    assert told["metadata"]["modelspec.author"] == "me"
    assert told["parts"]["vae"]["dtypes"] == ["BF16"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--save_precision", "fp61"), 'did you mean "fp16"'),
        (("--save_model_as", "difusers"), 'did you mean "diffusers"'),
        (("--fp16", "--bf16"), "two precisions at once"),
        (("--v2",), "this model is a Stable Diffusion 1.x; --v2 does not fit it"),
        (("--v1", "--v2"), "either a 1.x or a 2.x"),
        (("--metadata", "__import__('os').system('touch RAN')"), "no table of texts"),
        (("--vae", "gone.pt"), "there is no VAE here"),
    ],
)
def test_a_wrong_option_is_answered(sdft, tmp_path, words, said):
    small_sd1(tmp_path / "a.safetensors")
    ran = sdft("convert", "a.safetensors", "b.ckpt", *words, "--quiet")
    assert ran.code == USER_ERROR
    assert said in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_verify_tells_people_in_words(sdft, tmp_path):
    small_sd1(tmp_path / "a.safetensors")
    ran = sdft("verify", "a.safetensors", "--quiet")
    assert (ran.code, ran.out) == (0, "")
    ran = sdft("verify", "a.safetensors")
    assert "Stable Diffusion 1.x, safetensors, predicts epsilon" in ran.out
    assert ran.out.splitlines()[-1] == "whole"


def test_verify_reads_every_byte_of_a_cache(sdft, tmp_path):
    store = TensorStore(tmp_path / "cache" / "latents")
    with StoreWriter(store) as writer:
        writer.add("0" * 32, np.ones((4, 8, 8), dtype=np.float32), "fp16")
    ran = sdft("verify", "cache", "--json", "--quiet")
    assert (ran.code, ran.result["problems"]) == (0, [])
    assert ran.result["stores"][0]["entries"] == 1
    shard = next(path for path in store.shards_folder.rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    ran = sdft("verify", "cache", "--quiet", "--json")
    assert ran.code == DATA_ERROR
    assert len(ran.result["problems"]) == 1
