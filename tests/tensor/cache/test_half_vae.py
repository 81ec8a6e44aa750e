"""A VAE that overflows in fp16 gives finite latents all the same, and says so once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdft.cache.encoders import VaeEncoder
from sdft.cache.half_vae import HalfVaeEncoder
from sdft.models.configs import vae_config

WHITE = np.full((32, 32, 3), 255, dtype=np.uint8)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae():
    """27 inputs of 1 times 3,000 are more than fp16's 65,504; those of noise cancel out."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        config = vae_config(widths=(32, 32, 32, 32), layers_per_block=1, latent_channels=4)
        vae = AutoencoderKL.from_config(config).eval()
        vae.encoder.conv_in.weight[0] = 3000.0
    return vae


def encoder_of(vae, said):
    half = torch.nn.Module.to(copy.deepcopy(vae), torch.float16)
    return HalfVaeEncoder(
        half, load_whole_vae=lambda: copy.deepcopy(vae), tell_once=lambda: said.append("told")
    )


def test_pictures_that_overflow_are_encoded_in_float32_alone(vae):
    said = []
    encoder = encoder_of(vae, said)
    batch = np.stack([noise(1), WHITE, noise(2), WHITE])
    plain_half = VaeEncoder(torch.nn.Module.to(copy.deepcopy(vae), torch.float16))
    in_half = plain_half.submit(batch)()
    assert np.isfinite(in_half).all(axis=(1, 2, 3)).tolist() == [True, False, True, False]

    found = encoder.submit(batch)()

    assert np.isfinite(found).all()
    assert np.array_equal(found[0], in_half[0])
    assert np.array_equal(found[2], in_half[2])
    whole = VaeEncoder(vae).submit(WHITE[None])()[0]
    assert np.array_equal(found[1], whole)
    assert np.array_equal(found[3], whole)
    encoder.submit(batch)()
    assert said == ["told"]


def test_without_overflow_the_float32_vae_is_never_made(vae):
    said = []
    encoder = encoder_of(vae, said)
    encoder._load_whole_vae = pytest.fail
    assert np.isfinite(encoder.submit(np.stack([noise(3)]))()).all()
    assert said == []


def test_a_picture_that_overflows_in_float32_too_is_explained(vae):
    broken = copy.deepcopy(vae)
    with torch.no_grad():
        broken.encoder.conv_in.weight[0] = float("inf")
    encoder = encoder_of(broken, [])
    assert not np.isfinite(encoder.submit(WHITE[None])()).all()
    assert "weights are not finite" in encoder.explain_not_finite()[0]
