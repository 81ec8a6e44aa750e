"""One update of a hypernetwork: what changes, what has gradients, in which precision."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sdft.config.training import TrainingSettings
from sdft.events import ignore
from sdft.jobs.training.device_use import DeviceUse
from sdft.jobs.training.loading import networks_of
from sdft.jobs.training.recipes import build_stepper
from sdft.models.bundle import load_bundle
from sdft.models.compiling import CompileWishes
from tests.tensor.train.engine import fixed_batch

NONE = DeviceUse()


@pytest.fixture
def prepared(toys):
    """Return a function that prepares a hypernetwork's training on a toy."""

    def prepare(family="sd1", use=NONE, **settings):
        AcceleratorState._reset_state(reset_partial_state=True)
        values = {"hypernetwork": True, "learning_rate": 1e-2, "seed": 3} | settings
        chosen = TrainingSettings(**values)
        bundle = load_bundle(toys[family])
        accelerator = Accelerator(cpu=True, mixed_precision=chosen.mixed_precision or "no")
        networks = networks_of(chosen, bundle, accelerator, use, ignore)
        return bundle, networks, build_stepper(chosen, networks)

    yield prepare
    AcceleratorState._reset_state(reset_partial_state=True)


def copies(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module, before):
    return [name for name, tensor in module.state_dict().items() if not tensor.equal(before[name])]


@pytest.mark.parametrize("family", ["sd1", "sd2-base", "sd2-v"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_an_update_changes_the_hypernetwork_alone(prepared, family, precision):
    bundle, networks, stepper = prepared(family, mixed_precision=precision)
    frozen = (bundle.unet, bundle.text_encoder, bundle.vae)
    before = [copies(module) for module in frozen]
    mine = copies(networks.hypernetwork)
    outcome = stepper.update([fixed_batch(bundle)])
    assert torch.isfinite(outcome.loss)
    for module, old in zip(frozen, before, strict=True):
        assert changed(module, old) == []
        assert not any(weight.requires_grad for weight in module.parameters())
        assert all(weight.grad is None for weight in module.parameters())
    assert changed(networks.hypernetwork, mine) == list(mine)
    assert {weight.dtype for weight in networks.parameters} == {torch.float32}
    kept = torch.bfloat16 if precision == "bf16" else torch.float32
    assert {weight.dtype for weight in bundle.unet.parameters()} == {kept}
    # The state and the optimizer are about the hypernetwork only.
    assert list(networks.trained_weights()) == ["hypernetwork"]
    held = sum(
        value.numel()
        for values in networks.plain_optimizer.state.values()
        for value in values.values()
        if value.dim() > 0
    )
    assert held == 2 * sum(weight.numel() for weight in networks.hypernetwork.parameters())


def test_the_modules_have_the_widths_of_the_u_net(prepared):
    _, networks, _ = prepared()
    assert networks.hypernetwork.widths == (32, 64)


@pytest.mark.parametrize(
    "use",
    [
        DeviceUse(gradient_checkpointing=True),
        # Some 40 s, most of them for following the U-Net's Python.
        pytest.param(DeviceUse(compile=CompileWishes(backend="eager")), marks=pytest.mark.long),
    ],
    ids=["checkpointing", "compiled"],
)
def test_dropout_and_gradients_are_the_same_where_the_u_net_is_computed_otherwise(prepared, use):
    settings = {"use_dropout": True, "dropout_structure": (0, 0.3, 0), "activation_func": "relu"}
    weights = []
    for one in (NONE, use):
        bundle, networks, stepper = prepared(use=one, **settings)
        for seed in (1, 2):
            stepper.update([fixed_batch(bundle, seed=seed)])
        weights.append(copies(networks.hypernetwork))
        assert networks.random_passes.num_passes == 2
    assert weights[0].keys() == weights[1].keys()
    assert [name for name in weights[0] if not weights[0][name].equal(weights[1][name])] == []


def test_the_strength_takes_part_in_training(prepared):
    grads = []
    for strength in (1.0, 0.5):
        bundle, _, stepper = prepared(network_mul=strength, max_grad_norm=0.0)
        stepper.optimizer.zero_grad = lambda set_to_none: None
        stepper.update([fixed_batch(bundle)])
        grads.append(torch.cat([one.grad.flatten() for one in stepper.parameters]).norm())
    # The first weights hardly change the loss, so its gradient is in proportion.
    assert grads[1] / grads[0] == pytest.approx(0.5, rel=0.05)


def test_the_loss_of_a_batch_falls_with_the_hypernetwork_alone(prepared):
    bundle, _, stepper = prepared()
    losses = [float(stepper.update([fixed_batch(bundle)]).loss) for _ in range(16)]
    assert losses[15] < losses[5] < losses[0]
    assert losses[15] < 0.95 * losses[0]
