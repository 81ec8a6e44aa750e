"""Looking at a model: what is counted, and what is found wrong with it."""

from __future__ import annotations

import hashlib
import shutil

import torch
from safetensors.torch import load_file, save_file

from sdft.events import Notice, ignore
from sdft.jobs.verify import verify_model
from sdft.models.open import open_model
from tests.tensor.export.converting import convert
from tests.tensor.models.files import changed, single_file


def test_verify_names_values_that_are_no_numbers_and_tensors_that_are_missing(toys, tmp_path):
    def change(state):
        state["model.diffusion_model.out.2.weight"][0, 0, 0, 0] = float("nan")
        state["first_stage_model.decoder.conv_in.bias"][:2] = float("inf")
        del state["model.diffusion_model.time_embed.0.bias"]
        return state

    path = changed(toys["sd1"], tmp_path / "a.safetensors", change)
    result = verify_model(path, emit=ignore)
    words = "\n".join(str(problem) for problem in result.problems)
    assert '"conv_out.weight" has 1 values that are no number, 0 infinite' in words
    assert '"decoder.conv_in.bias" has 0 values that are no number, 2 infinite' in words
    assert "1 of 684 tensors are missing: time_embedding.linear_1.bias" in words
    assert len(result.problems) == 3


def test_verify_counts_what_is_there(toys, tmp_path):
    path = single_file(toys["sd2-v"], tmp_path / "a.safetensors", save_precision="fp16")
    told = verify_model(path, emit=ignore).as_json()
    assert told["family"] == "sd2-v"
    assert told["prediction_type"] == "v_prediction"
    assert told["parts"]["unet"]["dtypes"] == ("F16",)
    total = sum(tensor.numel() for tensor in load_file(path).values())
    assert (
        told["parameters"] + sum(t.num_elements for t in open_model(path).extras.values()) == total
    )
    assert told["sha256"] == {"a.safetensors": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert told["problems"] == []


def test_verify_finds_a_flipped_bit_by_the_hash(toys, tmp_path):
    path = single_file(toys["sd1"], tmp_path / "a.safetensors")
    with path.open("r+b") as file:
        file.seek(-1000, 2)
        byte = file.read(1)[0]
        file.seek(-1000, 2)
        file.write(bytes([byte ^ 1]))
    result = verify_model(path, emit=ignore)
    assert result.hash_matches is False
    assert "not those that the hash" in str(result.problems[0])


def test_a_tensor_that_no_network_has_is_named_and_left_out(toys, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(toys["sd1"], folder)
    file = folder / "text_encoder" / "model.safetensors"
    save_file(load_file(file) | {"text_projection.weight": torch.ones(2, 2)}, file)
    assert verify_model(folder, emit=ignore).facts.unexpected == {
        "text_encoder": ("text_projection.weight",)
    }
    told = []
    convert(folder, tmp_path / "a.safetensors", emit=told.append)
    assert "text_projection.weight" in next(e.message for e in told if isinstance(e, Notice))
