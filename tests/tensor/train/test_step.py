"""One update against plain torch and diffusers, and against itself cut into pieces."""

import copy
import itertools

import pytest
import torch
from accelerate import Accelerator
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from sdft.models.bundle import load_bundle
from sdft.models.text import encode_chunks
from sdft.models.toy import save_toy_model
from sdft.train.batch import Batch
from sdft.train.objective import EPSILON, V_PREDICTION, LossRecipe
from sdft.train.schedule import alphas_cumprod
from sdft.train.step import Objective, Stepper
from sdft.train.weighting import WeightRecipe

BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "model"
    save_toy_model(folder, seed=1)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def batch(bundle):
    torch.manual_seed(7)
    captions = ["a cat", "a red square, on grass", "", "two dogs"]
    # Below 16 x 16 the toy's lowest level is 1 x 1, where group norm is a sign and gradients are
    # rounding errors made large.
    return Batch(
        latents_BCHW=torch.randn(BATCH, 4, 16, 16),
        noise_BCHW=(noise := torch.randn(BATCH, 4, 16, 16)),
        input_noise_BCHW=noise,
        timesteps_B=torch.tensor([3, 250, 600, 999]),
        ids_BKS=torch.tensor([bundle.tokenizer.chunks(text, 75) for text in captions]),
        weights_B=torch.full((BATCH,), 1 / BATCH),
    )


def part_of(batch, start, stop):
    return Batch(**{name: getattr(batch, name)[start:stop] for name in batch.__slots__})


def stepper_of(bundle, *, prediction_type=EPSILON, loss=None, weights=None, lr=0.5, clip=0.0):
    unet = copy.deepcopy(bundle.unet).train().requires_grad_(True)
    parameters = list(unet.parameters())
    optimizer = torch.optim.SGD([{"params": parameters, "lr": lr, "base_lr": lr}])
    accelerator = Accelerator(cpu=True)

    def encode_text(ids_BKS):
        with torch.no_grad():
            return encode_chunks(
                bundle.text_encoder, ids_BKS, clip_skip=None, tokenizer=bundle.tokenizer
            )

    return Stepper(
        accelerator=accelerator,
        unet=unet,
        encode_text=encode_text,
        objective=Objective(
            prediction_type=prediction_type,
            alphas_bar_T=alphas_cumprod(),
            loss=loss or LossRecipe(),
            weights=weights or WeightRecipe(),
        ),
        optimizer=optimizer,
        parameters=parameters,
        max_grad_norm=clip,
        synced_modules=(unet,),
    )


def plain_losses(bundle, unet, batch, prediction_type, weight):
    """Return each item's loss by diffusers' scheduler and torch's functions alone."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
    )
    with torch.no_grad():
        contexts = bundle.text_encoder(batch.ids_BKS[:, 0]).last_hidden_state
    noisy = scheduler.add_noise(batch.latents_BCHW, batch.noise_BCHW, batch.timesteps_B)
    target = batch.noise_BCHW
    if prediction_type == V_PREDICTION:
        target = scheduler.get_velocity(batch.latents_BCHW, batch.noise_BCHW, batch.timesteps_B)
    predicted = unet(noisy, batch.timesteps_B, encoder_hidden_states=contexts).sample
    losses = torch.nn.functional.mse_loss(predicted, target, reduction="none").mean([1, 2, 3])
    snr = (scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod))[batch.timesteps_B]
    return losses * weight(snr)


@pytest.mark.parametrize(
    ("prediction_type", "recipe", "weight"),
    [
        (EPSILON, {}, lambda snr: 1.0),
        (V_PREDICTION, {}, lambda snr: 1.0),
        (EPSILON, {"min_snr_gamma": 5.0}, lambda snr: snr.clamp(max=5.0) / snr),
        (V_PREDICTION, {"min_snr_gamma": 5.0}, lambda snr: snr.clamp(max=5.0) / (snr + 1)),
        (EPSILON, {"debiased_estimation_loss": True}, lambda snr: snr.clamp(max=1000).rsqrt()),
    ],
)
def test_loss_and_every_gradient_equal_plain_torch_and_diffusers(
    bundle, batch, prediction_type, recipe, weight
):
    stepper = stepper_of(
        bundle, prediction_type=prediction_type, weights=WeightRecipe(**recipe), lr=1.0
    )
    reference = copy.deepcopy(bundle.unet).train().requires_grad_(True)
    expected = plain_losses(bundle, reference, batch, prediction_type, weight).mean()
    expected.backward()
    before = {name: tensor.detach().clone() for name, tensor in stepper.unet.named_parameters()}

    outcome = stepper.update([batch])

    assert outcome.loss.item() / BATCH == pytest.approx(expected.item(), rel=1e-6)
    gradients = {name: tensor.grad for name, tensor in reference.named_parameters()}
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, tensor in stepper.unet.named_parameters():
        # With plain SGD at a rate of 1 the change is the gradient, up to the weight's rounding.
        change = before[name] - tensor.detach()
        torch.testing.assert_close(change, gradients[name], rtol=1e-5, atol=1e-6 * max(1, largest))


@pytest.mark.parametrize("cuts", [[0, 2, 4], [0, 1, 2, 3, 4], [0, 3, 4]])
def test_accumulation_gives_the_update_of_one_large_batch(bundle, batch, cuts):
    whole = stepper_of(bundle, clip=1.0)
    pieces = stepper_of(bundle, clip=1.0)
    expected = whole.update([batch])
    found = pieces.update([part_of(batch, a, b) for a, b in itertools.pairwise(cuts)])
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert found.grad_norm.item() == pytest.approx(expected.grad_norm.item(), rel=1e-5)
    assert found.num_items == expected.num_items == BATCH
    for one, other in zip(whole.parameters, pieces.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_an_item_of_a_partial_step_moves_the_weights_as_it_would_in_a_full_one(bundle, batch):
    """Each item weighs one part of the effective batch, however few items a step has."""
    separate = stepper_of(bundle, lr=0.1)
    together = stepper_of(bundle, lr=0.1)
    together.update([part_of(batch, 0, 2)])
    start = [parameter.detach().clone() for parameter in separate.parameters]
    total = [torch.zeros_like(parameter) for parameter in separate.parameters]
    for index in (0, 1):
        separate.update([part_of(batch, index, index + 1)])
        with torch.no_grad():
            for parameter, origin, change in zip(separate.parameters, start, total, strict=True):
                change.add_(parameter - origin)
                parameter.copy_(origin)
    for parameter, origin, change in zip(together.parameters, start, total, strict=True):
        torch.testing.assert_close(parameter - origin, change, rtol=1e-4, atol=1e-6)


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
