"""The model learns within the demo's budget."""

import torch

from sdft.dataset.pixels import decode_rgb, fit
from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks
from sdft.models.vae import LATENT_SCALE, encode_moments, pixels_from_uint8
from sdft.train.objective import add_noise
from sdft.train.schedule import alphas_cumprod

TIMESTEPS = (100, 300, 500, 700, 900)
SIDE_PX = 192


@torch.no_grad()
def fixed_loss(model, images):
    """Return the mean squared error over fixed noise and timesteps, by plain torch."""
    bundle = load_bundle(model)
    draws = torch.Generator().manual_seed(11)
    losses = []
    for path in images:
        rgb = fit(decode_rgb(path), (SIDE_PX, SIDE_PX), (0, 0, SIDE_PX, SIDE_PX), None).copy()
        latents = encode_moments(bundle.vae, pixels_from_uint8(rgb))[:, :4] * LATENT_SCALE
        caption = path.with_suffix(".txt").read_text("utf-8").strip()
        ids = torch.tensor([bundle.tokenizer.chunks(caption, 75)])
        contexts = encode_chunks(
            bundle.text_encoder, ids, clip_skip=None, tokenizer=bundle.tokenizer
        )
        for timestep in TIMESTEPS:
            noise = torch.randn(latents.shape, generator=draws)
            noisy = add_noise(latents, noise, alphas_cumprod()[[timestep]])
            found = bundle.unet(noisy, torch.tensor([timestep]), contexts).sample
            losses.append((found - noise).square().mean().item())
    return sum(losses) / len(losses)


def test_the_loss_at_fixed_noise_falls_by_more_than_half_on_eight_images(toy, tmp_path):
    toy("copy", max_train_steps=1)
    images = sorted((tmp_path / "images").glob("*.[pj][np]g"))
    extra = images.pop()
    extra.unlink()
    extra.with_suffix(".txt").unlink()
    assert len(images) == 8

    run = toy("learnt", max_train_steps=40, max_train_epochs=None)
    assert run.error is None

    before = fixed_loss(tmp_path / "model.safetensors", images)
    after = fixed_loss(run.result.checkpoint, images)
    assert after < 0.5 * before
