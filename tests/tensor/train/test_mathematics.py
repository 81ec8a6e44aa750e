"""Noise schedule, targets, losses and weights against diffusers and against plain arithmetic."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from sdft.streams import Address
from sdft.train.noise import NoiseRecipe, draw_noise
from sdft.train.objective import (
    EPSILON,
    V_PREDICTION,
    LossRecipe,
    add_noise,
    elementwise_loss,
    huber_threshold,
    velocity_target,
)
from sdft.train.schedule import alphas_cumprod, signal_to_noise
from sdft.train.timesteps import draw_timestep
from sdft.train.weighting import WeightRecipe, loss_weights

SCHEDULER = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
)


def address(key="a.png", **changes):
    base = {"seed": 1, "epoch": 1, "dataset": 0, "subset": 0, "key": key, "repeat": 0}
    return Address(**(base | changes))


@pytest.mark.parametrize(
    ("timestep", "alpha_bar", "snr"),
    [
        (0, 0.99915, 1175.44),
        (1, 0.998296, 585.86),
        (250, 0.673792, 2.0655),
        (500, 0.276332, 0.38185),
        (750, 0.056170, 0.059513),
        (999, 0.004660, 0.0046819),
    ],
)
def test_the_schedule_has_the_published_anchors(timestep, alpha_bar, snr):
    alphas_bar_T = alphas_cumprod()
    assert alphas_bar_T[timestep].item() == pytest.approx(alpha_bar, rel=2e-4)
    assert signal_to_noise(alphas_bar_T)[timestep].item() == pytest.approx(snr, rel=2e-4)


def test_the_schedule_has_the_bits_of_diffusers():
    assert torch.equal(alphas_cumprod(), SCHEDULER.alphas_cumprod)


def test_zero_terminal_snr_ends_at_exactly_zero_and_keeps_the_start():
    rescaled_T = alphas_cumprod(zero_terminal_snr=True)
    assert rescaled_T[-1].item() == 0.0
    assert rescaled_T[0].item() == pytest.approx(alphas_cumprod()[0].item(), rel=1e-6)
    assert rescaled_T[500].item() == pytest.approx(0.241019, rel=1e-4)


def test_noisy_latents_and_velocity_equal_diffusers():
    torch.manual_seed(0)
    latents, noise = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    timesteps = torch.tensor([0, 250, 500, 999])
    alphas_bar_B = alphas_cumprod()[timesteps]
    assert torch.equal(
        add_noise(latents, noise, alphas_bar_B), SCHEDULER.add_noise(latents, noise, timesteps)
    )
    assert torch.equal(
        velocity_target(latents, noise, alphas_bar_B),
        SCHEDULER.get_velocity(latents, noise, timesteps),
    )


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
def test_huber_thresholds_follow_their_formula(schedule):
    recipe = LossRecipe(loss_type="huber", huber_schedule=schedule, huber_c=0.2, huber_scale=1.5)
    for timestep in (0, 400, 999):
        alpha_bar = alphas_cumprod()[timestep].item()
        sigma = math.sqrt((1 - alpha_bar) / alpha_bar)
        expected = {
            "constant": 0.2,
            "exponential": math.exp(math.log(0.2) * timestep / 1000),
            "snr": (1 - 0.2) / (1 + sigma) ** 2 + 0.2,
        }[schedule] * 1.5
        found = huber_threshold(torch.tensor([timestep]), torch.tensor([alpha_bar]), recipe)
        assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("l2", lambda d, c: d * d),
        ("l1", lambda d, c: abs(d)),
        ("huber", lambda d, c: 2 * c * (math.sqrt(d * d + c * c) - c)),
        ("smooth_l1", lambda d, c: 2 * (math.sqrt(d * d + c * c) - c)),
    ],
)
def test_each_loss_follows_its_formula(loss_type, expected):
    recipe = LossRecipe(loss_type=loss_type, huber_schedule="constant", huber_c=0.1)
    difference = torch.tensor([[[[0.3]]], [[[-2.0]]]])
    found = elementwise_loss(difference, torch.tensor([5, 5]), torch.tensor([0.5, 0.5]), recipe)
    assert found.flatten().tolist() == pytest.approx(
        [expected(0.3, 0.1), expected(-2.0, 0.1)], rel=1e-5
    )


@pytest.mark.parametrize(
    ("recipe", "prediction", "expected"),
    [
        ({"min_snr_gamma": 5.0}, EPSILON, lambda s: min(s, 5) / s),
        ({"min_snr_gamma": 5.0}, V_PREDICTION, lambda s: min(s, 5) / (s + 1)),
        ({"scale_v_pred_loss_like_noise_pred": True}, V_PREDICTION, lambda s: s / (s + 1)),
        ({"v_pred_like_loss": 0.5}, EPSILON, lambda s: 1 + 0.5 * (s + 1) / s),
        ({"debiased_estimation_loss": True}, EPSILON, lambda s: s**-0.5),
        ({"debiased_estimation_loss": True}, V_PREDICTION, lambda s: 1 / (s + 1)),
        ({}, EPSILON, lambda s: 1.0),
    ],
)
def test_each_weight_follows_its_formula(recipe, prediction, expected):
    timesteps = torch.tensor([1, 250, 500, 999])
    alphas_bar_B = alphas_cumprod()[timesteps]
    snr = [a / (1 - a) for a in alphas_bar_B.tolist()]
    found = loss_weights(alphas_bar_B, prediction, WeightRecipe(**recipe))
    assert found.tolist() == pytest.approx([expected(s) for s in snr], rel=1e-4)


def test_min_snr_is_finite_at_a_terminal_ratio_of_zero():
    alphas_bar_B = alphas_cumprod(zero_terminal_snr=True)[[998, 999]]
    for prediction in (EPSILON, V_PREDICTION):
        weights = loss_weights(alphas_bar_B, prediction, WeightRecipe(min_snr_gamma=5.0))
        assert torch.isfinite(weights).all()


def test_an_items_noise_depends_on_its_address_alone():
    latents = torch.zeros(4, 8, 8)
    first, _ = draw_noise(address(), latents, NoiseRecipe())
    assert torch.equal(first, draw_noise(address(), latents, NoiseRecipe())[0])
    others = [address("b.png"), address(repeat=1), address(dataset=1), address(epoch=2)]
    others += [address(subset=1), address(seed=2)]
    for other in others:
        assert not torch.equal(first, draw_noise(other, latents, NoiseRecipe())[0])


def test_plain_noise_is_standard_normal():
    draws = torch.stack(
        [
            draw_noise(address(f"{n}.png"), torch.zeros(4, 16, 16), NoiseRecipe())[0]
            for n in range(50)
        ]
    )
    assert abs(draws.mean().item()) < 0.02
    assert abs(draws.std().item() - 1.0) < 0.02


def test_noise_offset_moves_each_channel_as_a_whole():
    latents = torch.zeros(4, 8, 8)
    plain, _ = draw_noise(address(), latents, NoiseRecipe())
    moved, _ = draw_noise(address(), latents, NoiseRecipe(noise_offset=0.3))
    shift = moved - plain
    assert shift.std(dim=(1, 2)).max().item() < 1e-6
    assert shift.abs().max().item() > 0.0


def test_the_adaptive_offset_grows_with_the_latents_mean_and_never_below_zero():
    plain, _ = draw_noise(address(), torch.zeros(4, 8, 8), NoiseRecipe())

    def shift(mean, scale):
        recipe = NoiseRecipe(noise_offset=0.1, adaptive_noise_scale=scale)
        return (draw_noise(address(), torch.full((4, 8, 8), mean), recipe)[0] - plain)[:, 0, 0]

    ratio = shift(2.0, 0.05) / shift(0.0, 0.05)
    assert ratio.tolist() == pytest.approx([2.0] * 4, rel=1e-4)
    assert shift(-9.0, -0.05).abs().max().item() < 1e-6


def test_multires_noise_keeps_unit_deviation_and_adds_low_frequencies():
    recipe = NoiseRecipe(multires_noise_iterations=6, multires_noise_discount=0.8)
    noises = [draw_noise(address(f"{n}"), torch.zeros(4, 32, 32), recipe)[0] for n in range(20)]
    assert all(noise.std().item() == pytest.approx(1.0, abs=1e-5) for noise in noises)
    means = torch.stack(noises).mean(dim=(2, 3)).std().item()
    assert means > 5 / 32


def test_input_perturbation_changes_the_input_and_not_the_target():
    plain, _ = draw_noise(address(), torch.zeros(4, 16, 16), NoiseRecipe())
    target, given = draw_noise(address(), torch.zeros(4, 16, 16), NoiseRecipe(ip_noise_gamma=0.1))
    assert torch.equal(target, plain)
    assert (given - target).std().item() == pytest.approx(0.1, rel=0.1)


def test_timesteps_are_uniform_over_their_range():
    draws = [
        draw_timestep(address(f"{n}"), min_timestep=100, max_timestep=110) for n in range(5000)
    ]
    counts = [draws.count(value) for value in range(100, 110)]
    assert sum(counts) == 5000
    chi_square = sum((count - 500) ** 2 / 500 for count in counts)
    assert chi_square < 27.9  # the 99.9 % point with 9 degrees of freedom
