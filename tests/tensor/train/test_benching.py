"""What `sdft bench` compares with: the same arithmetic, counted and done."""

from __future__ import annotations

import pytest
import torch

from sdft.jobs.benching.bare import BareLoop
from sdft.jobs.benching.made_run import made_run
from sdft.jobs.benching.peak import unet_flops, vae_flops
from sdft.jobs.benching.random_model import fixed_batch, random_model
from sdft.jobs.benching.rig import build_rig, settings_of
from sdft.models.family import FAMILIES
from sdft.models.published import published_sizes
from sdft.models.source import config_from_sizes

CPU = torch.device("cpu")


def toy_rig():
    bundle = random_model("sd1", device=CPU, parts=("unet", "text_encoder"), toy=True)
    return build_rig(bundle, settings_of({"device": "cpu", "learning_rate": 1e-3}))


def test_the_bare_loop_changes_the_weights_as_the_engine_does():
    engine, bare = toy_rig(), toy_rig()
    batch = fixed_batch(engine.networks.bundle, batch_size=2, side_px=64, seed=1)
    before = [one.detach().clone() for one in bare.networks.parameters]
    loop = BareLoop(bare.networks, bare.stepper, batch)
    engine.stepper.set_lr(1.0)
    bare.stepper.set_lr(1.0)
    for number in range(2):
        engine.stepper.update([batch])
        loop.step(number)
    assert any(not torch.equal(a, b) for a, b in zip(before, bare.networks.parameters, strict=True))
    for mine, its in zip(engine.networks.parameters, bare.networks.parameters, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=2e-4)


def test_a_stretch_of_the_made_loop_does_its_steps_and_goes_on_where_it_was(tmp_path):
    run = made_run(toy_rig(), tmp_path, side_px=64, batch_size=2)
    assert run.loop_step_s(2) > 0
    assert run.meter.step == 3
    run.loop_step_s(1)
    assert run.meter.step == 5


def test_arithmetic_of_a_picture_is_that_of_the_published_tables():
    sizes = published_sizes("sd1")
    unet = config_from_sizes("unet", sizes.unet, FAMILIES["sd1"])
    vae = config_from_sizes("vae", sizes.vae, FAMILIES["sd1"])
    # As measured with diffusers' networks at 512 px, 77 tokens, two operations a product.
    assert unet_flops(unet, 512) == pytest.approx(2.407e12, rel=0.01)
    assert vae_flops(vae, 512) == pytest.approx(1.117e12, rel=0.01)
