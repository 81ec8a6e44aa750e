"""The recipe of the tiny model from end to end, in a few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdft.models.bundle import load_bundle

pytestmark = pytest.mark.long

RECIPES = Path(__file__).parents[2] / "recipes"


def recipe(name, *words):
    line = [sys.executable, "-W", "ignore", RECIPES / f"{name}.py", *map(str, words)]
    return subprocess.run(line, check=False, capture_output=True, text=True)


def test_a_resumed_training_goes_on_and_its_result_is_packed_and_measured(tmp_path):
    trained, packed = tmp_path / "trained", tmp_path / "packed"
    words = [trained, "--pictures", 16, "--vae-steps", 1]
    assert recipe("train_tiny", *words, "--unet-steps", 1).returncode == 0
    before = torch.load(trained / "state.pt")
    assert recipe("train_tiny", *words, "--unet-steps", 3, "--resume").returncode == 0
    after = torch.load(trained / "state.pt")
    assert (before["step"], after["step"]) == (1, 3)
    assert after["spent_s"] > before["spent_s"]
    vae_before, vae_after = (state["networks"]["vae"] for state in (before, after))
    assert all(torch.equal(vae_before[name], vae_after[name]) for name in vae_before)

    # An untrained model is packed and measured like another, and is not good enough.
    found = recipe("finish_tiny", trained, "--into", packed, "--captions", 2)
    assert found.returncode == 1, found.stderr
    figures = json.loads(found.stdout)
    assert figures["bytes"] == (packed / "tiny.safetensors").stat().st_size <= 12_000_000
    assert figures["psnr_db"] < 24
    assert f"{figures['psnr_db']:.1f} dB" in (packed / "CARD.md").read_text("utf-8")
    bundle = load_bundle(packed / "tiny.safetensors")
    assert bundle.family.name == "sd1"
    assert bundle.metadata["modelspec.license"] == "Apache-2.0"
