"""One update against plain torch and diffusers, and against itself cut into pieces."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch

from sdft.models.bundle import load_bundle
from sdft.train.objective import EPSILON, V_PREDICTION, LossRecipe
from sdft.train.weighting import WeightRecipe
from tests.tensor.train.engine import (
    BATCH,
    KeptGradients,
    fixed_batch,
    part_of,
    plain_losses,
    stepper_of,
)


@pytest.fixture(scope="module")
def bundle(toys):
    return load_bundle(toys["sd1"])


@pytest.fixture(scope="module")
def batch(bundle):
    return fixed_batch(bundle)


def threshold(schedule, timesteps, scheduler, c=0.1, scale=1.0):
    """Return c of the Huber losses, one number at a time."""
    values = []
    for timestep in timesteps.tolist():
        alpha = scheduler.alphas_cumprod[timestep].item()
        sigma = math.sqrt((1 - alpha) / alpha)
        values.append(
            {
                "constant": c,
                "exponential": math.exp(math.log(c) * timestep / 1000),
                "snr": (1 - c) / (1 + sigma) ** 2 + c,
            }[schedule]
            * scale
        )
    return torch.tensor(values).view(-1, 1, 1, 1)


def huber(schedule):
    def loss(d, timesteps, scheduler):
        c = threshold(schedule, timesteps, scheduler)
        return 2 * c * ((d**2 + c**2).sqrt() - c)

    return loss


def smooth_l1(d, timesteps, scheduler):
    c = threshold("snr", timesteps, scheduler)
    return 2 * ((d**2 + c**2).sqrt() - c)


def l1(d, timesteps, scheduler):
    return d.abs()


def l2(d, timesteps, scheduler):
    return d**2


LOSSES = {
    "l2": (LossRecipe(), l2),
    "l1": (LossRecipe(loss_type="l1"), l1),
    "huber constant": (
        LossRecipe(loss_type="huber", huber_schedule="constant"),
        huber("constant"),
    ),
    "huber exponential": (
        LossRecipe(loss_type="huber", huber_schedule="exponential"),
        huber("exponential"),
    ),
    "huber snr": (LossRecipe(loss_type="huber"), huber("snr")),
    "smooth_l1": (LossRecipe(loss_type="smooth_l1"), smooth_l1),
}

WEIGHTS = {
    "none": (WeightRecipe(), torch.ones_like, torch.ones_like),
    "min-SNR": (
        WeightRecipe(min_snr_gamma=5.0),
        lambda snr: snr.clamp(max=5.0) / snr,
        lambda snr: snr.clamp(max=5.0) / (snr + 1),
    ),
    "debiased": (
        WeightRecipe(debiased_estimation_loss=True),
        lambda snr: snr.clamp(max=1000).rsqrt(),
        lambda snr: 1 / (snr.clamp(max=1000) + 1),
    ),
    "v like noise": (
        WeightRecipe(scale_v_pred_loss_like_noise_pred=True),
        None,
        lambda snr: snr.clamp(max=1000) / (snr.clamp(max=1000) + 1),
    ),
    "v-like": (
        WeightRecipe(v_pred_like_loss=0.3),
        lambda snr: 1 + 0.3 * (snr.clamp(max=1000) + 1) / snr.clamp(max=1000),
        None,
    ),
}

OBJECTIVES = [
    (prediction, "l2", weight)
    for prediction in (EPSILON, V_PREDICTION)
    for weight, row in WEIGHTS.items()
    if row[1 if prediction == EPSILON else 2] is not None
] + [(prediction, loss, "none") for prediction in (EPSILON, V_PREDICTION) for loss in LOSSES]


def norm_of(gradients):
    return torch.stack([gradient.norm() for gradient in gradients]).norm()


def assert_same_gradients(found, expected, share=1e-6):
    """Compare the whole gradient, and that of each weight beside its own norm.

    Biases in front of a group norm have a true gradient of 0 and an actual one of rounding
    errors: below 1e-7 of the whole a difference says nothing.
    """
    whole = norm_of(expected)
    assert norm_of([one - other for one, other in zip(found, expected, strict=True)]) <= (
        share * whole
    )
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 3 * share * other.norm() + 1e-7 * whole


def gradients_of(unet):
    return [weight.grad for weight in unet.parameters()]


@pytest.mark.parametrize(("prediction_type", "loss", "weight"), OBJECTIVES)
def test_loss_and_every_gradient_equal_plain_torch_and_diffusers(
    bundle, batch, prediction_type, loss, weight
):
    recipe, elementwise = LOSSES[loss]
    weights, of_epsilon, of_v = WEIGHTS[weight]
    stepper = stepper_of(
        bundle,
        optimizer=KeptGradients,
        prediction_type=prediction_type,
        loss=recipe,
        weights=weights,
    )
    reference = copy.deepcopy(bundle.unet).train().requires_grad_(True)
    expected = plain_losses(
        bundle,
        reference,
        batch,
        prediction_type=prediction_type,
        elementwise=elementwise,
        weight=of_epsilon if prediction_type == EPSILON else of_v,
    ).mean()
    expected.backward()

    outcome = stepper.update([batch])

    assert outcome.loss.item() / BATCH == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradients(stepper.optimizer.gradients, gradients_of(reference))


def test_under_a_zero_terminal_ratio_the_weights_belong_to_the_rescaled_schedule(bundle, batch):
    stepper = stepper_of(
        bundle,
        optimizer=KeptGradients,
        prediction_type=V_PREDICTION,
        weights=WeightRecipe(min_snr_gamma=5.0),
        zero_terminal_snr=True,
    )
    # Half of the last step's item is pure noise; diffusers keeps 2^-24 of the signal there.
    early = dataclasses.replace(batch, timesteps_B=torch.tensor([3, 250, 600, 998]))
    reference = copy.deepcopy(bundle.unet).train().requires_grad_(True)
    expected = plain_losses(
        bundle,
        reference,
        early,
        prediction_type=V_PREDICTION,
        weight=lambda snr: snr.clamp(max=5.0) / (snr + 1),
        zero_terminal_snr=True,
    ).mean()
    expected.backward()
    outcome = stepper.update([early])
    assert outcome.loss.item() / BATCH == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(stepper.optimizer.gradients, gradients_of(reference), share=1e-5)


def test_input_perturbation_changes_what_the_network_sees_and_not_what_it_should_say(bundle):
    generator = torch.Generator().manual_seed(3)
    plain = fixed_batch(bundle)
    perturbed = dataclasses.replace(
        plain,
        input_noise_BCHW=plain.noise_BCHW
        + 0.1 * torch.randn(plain.noise_BCHW.shape, generator=generator),
    )
    stepper = stepper_of(bundle, optimizer=KeptGradients)
    reference = copy.deepcopy(bundle.unet).train().requires_grad_(True)
    expected = plain_losses(bundle, reference, perturbed).mean()
    expected.backward()
    assert stepper.update([perturbed]).loss.item() / BATCH == pytest.approx(expected.item())
    assert_same_gradients(stepper.optimizer.gradients, gradients_of(reference))


@pytest.mark.parametrize("over_mask", [True, False])
def test_a_masked_loss_counts_the_masked_cells_alone(bundle, batch, over_mask):
    generator = torch.Generator().manual_seed(5)
    masks = torch.rand(BATCH, 16, 16, generator=generator)
    masks[1] = 1.0
    masks[2, :, :8] = 0.0
    masked = dataclasses.replace(batch, masks_BHW=masks)
    stepper = stepper_of(bundle, optimizer=KeptGradients, loss=LossRecipe(mean_over_mask=over_mask))
    reference = copy.deepcopy(bundle.unet).train().requires_grad_(True)

    def elementwise(d, timesteps, scheduler):
        weighed = d**2 * masks[:, None]
        return weighed / masks.mean(dim=(1, 2)).view(-1, 1, 1, 1) if over_mask else weighed

    expected = plain_losses(bundle, reference, batch, elementwise=elementwise).mean()
    expected.backward()
    assert stepper.update([masked]).loss.item() / BATCH == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradients(stepper.optimizer.gradients, gradients_of(reference), share=1e-6)


def test_an_empty_mask_teaches_nothing_and_breaks_nothing(bundle, batch):
    masks = torch.ones(BATCH, 16, 16)
    masks[0] = 0.0
    with_empty = stepper_of(bundle, optimizer=KeptGradients)
    without = stepper_of(bundle, optimizer=KeptGradients)
    with_empty.update([dataclasses.replace(batch, masks_BHW=masks)])
    without.update([part_of(batch, 1, BATCH)])
    pairs = zip(with_empty.optimizer.gradients, without.optimizer.gradients, strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cuts", [[0, 2, 4], [0, 1, 2, 3, 4], [0, 3, 4]])
def test_accumulation_gives_the_gradient_of_one_large_batch(bundle, batch, cuts):
    whole = stepper_of(bundle, optimizer=KeptGradients, clip=1.0)
    pieces = stepper_of(bundle, optimizer=KeptGradients, clip=1.0)
    expected = whole.update([batch])
    found = pieces.update([part_of(batch, a, b) for a, b in itertools.pairwise(cuts)])
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert found.grad_norm.item() == pytest.approx(expected.grad_norm.item(), rel=1e-5)
    assert_same_gradients(pieces.optimizer.gradients, whole.optimizer.gradients, share=1e-5)


def test_an_item_of_a_partial_step_moves_the_weights_as_it_would_in_a_full_one(bundle, batch):
    """Each item weighs one part of the effective batch, however few items a step has."""
    together = stepper_of(bundle, optimizer=KeptGradients)
    together.update([part_of(batch, 0, 2)])
    alone = [stepper_of(bundle, optimizer=KeptGradients) for _ in range(2)]
    for index, stepper in enumerate(alone):
        stepper.update([part_of(batch, index, index + 1)])
    pairs = zip(*(stepper.optimizer.gradients for stepper in alone), strict=True)
    summed = [one + other for one, other in pairs]
    assert_same_gradients(summed, together.optimizer.gradients, share=1e-5)


def test_clipping_bounds_the_whole_gradient_and_reports_its_norm_before(bundle, batch):
    free, clipped = stepper_of(bundle, lr=1.0), stepper_of(bundle, lr=1.0, clip=1e-3)
    before = [parameter.detach().clone() for parameter in clipped.parameters]
    assert free.update([batch]).grad_norm is None
    norm = clipped.update([batch]).grad_norm.item()
    moved = [new.detach() - old for new, old in zip(clipped.parameters, before, strict=True)]
    assert norm > 1e-3
    assert torch.stack([part.norm() for part in moved]).norm().item() == pytest.approx(
        1e-3, rel=1e-2
    )


def test_the_rate_of_each_group_follows_its_own_base_rate(bundle):
    stepper = stepper_of(bundle, lr=0.5)
    assert stepper.set_lr(0.1) == pytest.approx(0.05)
    assert stepper.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_two_runs_of_the_same_steps_end_with_the_same_bits(bundle, batch):
    steppers = [stepper_of(bundle, optimizer=torch.optim.AdamW, lr=1e-4, clip=1.0) for _ in "ab"]
    other = fixed_batch(bundle, seed=8)
    outcomes = [
        [stepper.update(step) for step in ([batch], [part_of(other, 0, 3)], [other])]
        for stepper in steppers
    ]
    assert all(torch.equal(one.loss, two.loss) for one, two in zip(*outcomes, strict=True))
    pairs = zip(steppers[0].parameters, steppers[1].parameters, strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
