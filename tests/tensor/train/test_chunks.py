"""Updates part by part, and within the backward pass, beside the usual ones."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sdft.config.training import TrainingSettings
from sdft.errors import ConfigError
from sdft.events import ignore
from sdft.jobs.training.chunking import ChunkWishes
from sdft.jobs.training.networks import AverageWishes, TrainedPrecision
from sdft.jobs.training.preparing import prepare_networks
from sdft.jobs.training.wishes import scales_loss
from sdft.models.bundle import load_bundle
from sdft.train import chunks as chunks_file
from sdft.train.objective import EPSILON, LossRecipe
from sdft.train.schedule import alphas_cumprod
from sdft.train.step import Objective, Stepper
from sdft.train.weighting import WeightRecipe
from tests.tensor.train.engine import fixed_batch, with_small_unet

FUSED = ChunkWishes(fused_backward=True)
BF16 = TrainedPrecision(weights=torch.bfloat16, stochastic_rounding=True)
SMALL_CHUNK = 10_000
"""Some dozens of chunks."""


@pytest.fixture(scope="module")
def bundle(toys):
    """The toy with a U-Net of fewer blocks: each test makes several steps of two of them."""
    return with_small_unet(load_bundle(toys["sd1"]))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks_file, "CHUNK_ELEMENTS", SMALL_CHUNK)


def stepper_of(
    bundle, *, optimizer="AdamW", chunks=FUSED, precision=None, clip=0.0, ema=None, **arguments
):
    AcceleratorState._reset_state()
    precision = precision or TrainedPrecision()
    networks = prepare_networks(
        replace(bundle, networks=copy.deepcopy(dict(bundle.networks))),
        Accelerator(cpu=True, mixed_precision="bf16" if precision is BF16 else "no"),
        train_text_encoder=False,
        learning_rate=1e-4,
        learning_rate_te=None,
        optimizer_type=optimizer,
        optimizer_arguments=arguments,
        clip_skip=None,
        frozen_dtype=torch.float32,
        emit=ignore,
        precision=precision,
        average=ema,
        chunks=replace(chunks, max_grad_norm=clip),
        seed=5,
    )
    stepper = Stepper(
        accelerator=networks.accelerator,
        unet=networks.unet,
        encode_text=networks.encode_text,
        objective=Objective(
            prediction_type=EPSILON,
            alphas_bar_T=alphas_cumprod(),
            loss=LossRecipe(),
            weights=WeightRecipe(),
            input_dtype=precision.weights,
        ),
        optimizer=networks.optimizer,
        parameters=networks.parameters,
        max_grad_norm=clip,
        synced_modules=networks.trained_modules,
        rounding=networks.rounding,
        fused=networks.fused,
        average=networks.average,
        scaler=networks.scaler,
    )
    return networks, stepper


def trained(bundle, num_steps=2, **how):
    networks, stepper = stepper_of(bundle, **how)
    outcomes = [
        stepper.update([fixed_batch(networks.bundle, seed=step)]) for step in range(num_steps)
    ]
    return networks.plain_unet.state_dict(), outcomes


def difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("optimizer", ["AdamW", "Lion", "Adafactor", "SGDNesterov"])
def test_a_fused_backward_pass_changes_the_weights_as_the_usual_step_does(bundle, optimizer):
    how = {"optimizer": optimizer}
    if optimizer == "Adafactor":
        how |= {"relative_step": False, "scale_parameter": False, "warmup_init": False}
    usual, _ = trained(bundle, chunks=ChunkWishes(), **how)
    fused, _ = trained(bundle, **how)
    assert difference(usual, fused) < 1e-7


def test_a_fused_backward_pass_clips_each_weights_gradient_and_tells_the_whole_norm(bundle):
    usual, stepper = stepper_of(bundle, optimizer="SGDNesterov", chunks=ChunkWishes())
    batch = fixed_batch(usual.bundle, seed=0)
    losses = stepper.objective.losses(stepper.unet, batch, stepper.encode_text(batch.ids_BKS))
    (losses * batch.weights_B).sum().backward()
    gradients = [weight.grad for weight in usual.parameters]
    whole_norm = torch.nn.utils.get_total_norm(gradients)
    for weight in usual.parameters:
        torch.nn.utils.clip_grad_norm_([weight], 0.01)
    usual.optimizer.step()
    fused, outcomes = trained(bundle, 1, optimizer="SGDNesterov", clip=0.01)
    assert difference(usual.plain_unet.state_dict(), fused) < 1e-7
    assert float(outcomes[0].grad_norm) == pytest.approx(float(whole_norm), rel=1e-5)


def test_the_gradients_of_all_weights_never_exist_at_once(bundle):
    networks, stepper = stepper_of(bundle)
    most = 0
    step_chunk = networks.optimizer.step_chunk

    def watched(chunk, *, max_norm=None):
        nonlocal most
        alive = sum(one.numel() for one in networks.parameters if one.grad is not None)
        most = max(most, alive)
        step_chunk(chunk, max_norm=max_norm)
        assert all(one.grad is None for one in chunk.weights)
        # What the optimizer saw is gone as well, until the chunk's next step.
        assert all(one.numel() == 0 and one.grad is None for one in chunk.stand_ins)

    networks.optimizer.step_chunk = watched
    stepper.update([fixed_batch(networks.bundle)])
    whole = sum(one.numel() for one in networks.parameters)
    largest = max(one.numel() for one in networks.parameters)
    assert 0 < most < max(whole / 4, 4 * (SMALL_CHUNK + largest))
    assert most < whole / 2
    assert all(one.grad is None for one in networks.parameters)


def test_states_in_main_memory_change_no_bit(bundle):
    chunked, _ = trained(bundle, chunks=FUSED)
    moved, _ = trained(bundle, chunks=replace(FUSED, states_on_cpu=True))
    assert difference(chunked, moved) == 0
    usual, outcomes = trained(bundle, chunks=ChunkWishes(), clip=0.5)
    apart, others = trained(bundle, chunks=ChunkWishes(states_on_cpu=True), clip=0.5)
    assert difference(usual, apart) < 1e-7
    assert float(outcomes[0].grad_norm) == float(others[0].grad_norm)


def test_a_scaled_loss_goes_with_states_in_main_memory(bundle):
    asked = {"mixed_precision": "fp16", "optimizer_states_on_cpu": True}
    assert scales_loss(TrainingSettings.model_validate(asked))
    assert not scales_loss(TrainingSettings.model_validate({"mixed_precision": "fp16"}))
    # Steps that are as large as the gradient: one that is still scaled would show.
    how = {"optimizer": "SGDNesterov", "clip": 0.5, "chunks": ChunkWishes(states_on_cpu=True)}
    plain, _ = trained(bundle, **how)
    scaled, _ = trained(bundle, precision=TrainedPrecision(scales_loss=True), **how)
    assert difference(plain, scaled) < 1e-7


def test_an_average_follows_the_weights_that_the_backward_pass_changed(bundle):
    averages = []
    for chunks in (ChunkWishes(), FUSED):
        networks, stepper = stepper_of(
            bundle, chunks=chunks, ema=AverageWishes(decay=0.9, on_cpu=True)
        )
        for step in range(3):
            stepper.update([fixed_batch(networks.bundle, seed=step)])
        averages.append(networks.average.tensors())
        now = networks.plain_unet.state_dict()
        apart = {name.partition(".")[2]: one for name, one in averages[-1].items()}
        assert any(not torch.equal(apart[name], now[name]) for name in now if name in apart)
    assert difference(*averages) < 1e-7


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_no_number_is_seen_with_clipping_and_without(bundle, clip):
    networks, stepper = stepper_of(bundle, clip=clip, precision=BF16)
    networks.parameters[3].register_hook(lambda gradient: gradient * float("nan"))
    outcome = stepper.update([fixed_batch(networks.bundle)])
    assert torch.isfinite(outcome.loss)
    assert not torch.isfinite(outcome.grad_norm)
    # It shows in the weight too, so nothing goes on as if it were sound.
    assert networks.parameters[3].isnan().all()


def test_the_state_of_an_optimizer_without_chunks_is_refused(bundle):
    usual, _ = stepper_of(bundle, chunks=ChunkWishes())
    fused, _ = stepper_of(bundle)
    with pytest.raises(KeyError, match="chunks"):
        fused.load_optimizer_state(usual.optimizer_state())
    state = fused.optimizer_state()
    state["optimizer"]["chunks"].pop()
    with pytest.raises(ValueError, match="shorter"):
        fused.load_optimizer_state(state)


@pytest.mark.parametrize("precision", [None, BF16])
@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW8bit", "Lion8bit", "Adafactor"])
def test_a_resumed_fused_run_has_the_same_bits(bundle, optimizer, precision):
    how = {"optimizer": optimizer, "precision": precision, "clip": 0.1}
    whole, _ = trained(bundle, 3, **how)
    networks, stepper = stepper_of(bundle, **how)
    stepper.update([fixed_batch(networks.bundle, seed=0)])
    again, resumed = stepper_of(bundle, **how)
    again.plain_unet.load_state_dict(networks.plain_unet.state_dict())
    again.load_optimizer_state(networks.optimizer_state())
    for step in (1, 2):
        resumed.update([fixed_batch(again.bundle, seed=step)])
    assert difference(whole, again.plain_unet.state_dict()) == 0


def test_states_are_8_bit_where_they_are_said_to_be(bundle):
    networks, stepper = stepper_of(bundle, optimizer="AdamW8bit", precision=BF16)
    stepper.update([fixed_batch(networks.bundle)])
    in_8_bits = in_32_bits = 0
    for chunk in networks.optimizer.chunks:
        (stand_in,) = chunk.stand_ins
        state = chunk.optimizer.state[stand_in]["state1"]
        if all(one.numel() >= chunks_file.SMALL_ELEMENTS for one in chunk.weights):
            assert state.dtype == torch.uint8
            in_8_bits += sum(one.numel() for one in chunk.weights)
        else:
            assert state.dtype == torch.float32
            in_32_bits += sum(one.numel() for one in chunk.weights)
    assert in_32_bits > 0
    assert in_8_bits > 10 * in_32_bits


def test_8_bit_states_of_a_chunk_are_those_of_its_weights_alone(bundle):
    """No scale is shared by two weights, so putting them into one tensor changes nothing."""
    usual, _ = trained(bundle, optimizer="AdamW8bit", chunks=ChunkWishes())
    fused, _ = trained(bundle, optimizer="AdamW8bit")
    assert difference(usual, fused) < 1e-7


def test_an_optimizer_that_looks_at_all_weights_is_refused(bundle):
    with pytest.raises(ConfigError, match="looks at all weights"):
        stepper_of(bundle, optimizer="Prodigy", chunks=FUSED)
