"""A model by its hub ID: what is asked of the network, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdft.errors import EnvironmentFault, UserError
from sdft.models.hub import from_hub, wanted_files


def test_one_form_of_each_network_is_taken_and_nothing_else():
    names = [
        "v1-5-pruned.ckpt",
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "safety_checker/model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert wanted_files(names) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
    ]
    alone = ["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"]
    assert wanted_files(alone) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert wanted_files(["README.md", "model.gguf"]) == []


@pytest.mark.parametrize(
    "name",
    ["gone.safetensors", "models/gone.ckpt", "/abs/gone", "a/b/c", "../gone", "here/gone", "gone"],
)
def test_what_looks_like_a_path_is_never_sent_to_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="there is no model here"):
        from_hub(Path(name), "model")


def test_without_a_network_an_id_that_is_not_in_the_cache_says_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EnvironmentFault, match="no VAE here, and the hub cannot be asked for it"):
        from_hub(Path("nobody/nothing"), "VAE")


def test_a_model_in_the_hub_s_cache_is_found_without_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    snapshot = cache / "models--owner--model" / "snapshots" / "0123456789"
    snapshot.mkdir(parents=True)
    (cache / "models--owner--model" / "refs").mkdir()
    (cache / "models--owner--model" / "refs" / "main").write_text("0123456789")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert from_hub(Path("owner/model"), "model") == snapshot
