"""What trades memory for time changes no number, and no name of a weight."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sdft.config.training import TrainingSettings
from sdft.errors import ConfigError
from sdft.jobs.benching.random_model import fixed_batch, random_model
from sdft.jobs.benching.rig import build_rig, settings_of
from sdft.jobs.training.device_use import device_use
from sdft.models import compiling
from sdft.models.checkpointing import block_names
from sdft.models.compiling import uncompiled, why_not_compiled
from tests.tensor.train.engine import with_small_unet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy():
    whole = random_model("sd1", device=CPU, toy=True, parts=("unet", "text_encoder"))
    return with_small_unet(whole)


def rig_of(toy, **values):
    networks = {"unet": copy.deepcopy(toy.unet), "text_encoder": toy.text_encoder}
    return build_rig(
        replace(toy, networks=networks),
        settings_of({"device": "cpu", "learning_rate": 1e-3} | values),
    )


def losses(rig, num_steps=2, first=0):
    batches = [
        fixed_batch(rig.networks.bundle, batch_size=1, side_px=128, seed=first + step)
        for step in range(num_steps)
    ]
    return [float(rig.stepper.update([batch]).loss) for batch in batches]


@pytest.fixture(scope="module")
def plain(toy):
    return losses(rig_of(toy))


# torch looks at gradients of tensors that have none, and warns of it.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize(
    "values",
    [
        {"gradient_checkpointing": True},
        {"checkpoint_blocks": ("down_blocks.0", "up_blocks.1")},
        {"torch_compile": True, "dynamo_backend": "eager"},
        {"torch_compile": True, "dynamo_backend": "eager", "compile_scope": "blocks"},
    ],
    ids=["all blocks twice", "two blocks twice", "compiled", "blocks compiled"],
)
def test_losses_have_the_same_bits(toy, plain, values):
    assert losses(rig_of(toy, **values)) == plain


def test_only_the_named_blocks_compute_twice(toy):
    rig = rig_of(toy, checkpoint_blocks=("mid_block",))
    twice = {
        name
        for name in block_names(rig.networks.plain_unet)
        if any(
            getattr(module, "gradient_checkpointing", False)
            for module in rig.networks.plain_unet.get_submodule(name).modules()
        )
    }
    assert twice == {"mid_block"}


def test_a_block_that_is_not_there_is_named_with_the_nearest(toy):
    with pytest.raises(ConfigError, match=r'no block "down_block\.1"') as caught:
        rig_of(toy, checkpoint_blocks=("down_block.1",))
    assert "down_blocks.1" in caught.value.problems[0].fix


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("scope", ["unet", "blocks"])
def test_compiling_leaves_the_names_of_weights_alone(toy, scope):
    rig = rig_of(toy, torch_compile=True, dynamo_backend="eager", compile_scope=scope)
    losses(rig, 1)
    assert rig.networks.plain_unet.state_dict().keys() == toy.unet.state_dict().keys()


def test_pictures_are_drawn_uncompiled(toy, monkeypatch):
    rig = rig_of(toy, torch_compile=True, dynamo_backend="eager")
    losses(rig, 1)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad(), rig.networks.drawing():
        rig.networks.unet(torch.randn(3, 4, 24, 24), 5, torch.randn(3, 77, 768))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
    with torch.no_grad():
        rig.networks.unet(torch.randn(3, 4, 24, 24), 5, torch.randn(3, 77, 768))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before


def test_uncompiled_holds_only_within():
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    double = torch.compile(lambda x: x * 2, backend=backend)
    with uncompiled():
        double(torch.ones(2))
    assert not calls
    double(torch.ones(2))
    assert len(calls) == 1


def contiguous(value):
    """What comes back from a state file, which knows no strides."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().contiguous()
    if isinstance(value, dict):
        return {key: contiguous(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(contiguous(one) for one in value)
    return value


def resumed_losses(toy, values, *, channels_last):
    """Return two losses after a step whose state went through a file."""
    halved = rig_of(toy, channels_last=True, **values)
    losses(halved, 1)
    again = rig_of(toy, channels_last=channels_last, **values)
    again.networks.plain_unet.load_state_dict(
        contiguous(dict(halved.networks.plain_unet.state_dict()))
    )
    again.networks.load_optimizer_state(contiguous(halved.networks.optimizer_state()))
    return losses(again, 2, first=1)


FULL_BF16 = {"mixed_precision": "bf16", "full_bf16": True}
LAID_OUT = {
    "float32": {},
    "rounded by chance": FULL_BF16,
    "fused": {"fused_backward_pass": True},
    "fused, 8 bits": FULL_BF16 | {"fused_backward_pass": True, "optimizer_type": "AdamW8bit"},
}


@pytest.mark.parametrize("name", LAID_OUT)
def test_channels_last_goes_on_with_states_of_another_layout(toy, name):
    expected = losses(rig_of(toy, channels_last=True, **LAID_OUT[name]), 3)
    assert resumed_losses(toy, LAID_OUT[name], channels_last=True) == expected[1:]


@pytest.mark.parametrize("name", ["float32", "fused"])
def test_a_run_may_go_on_with_weights_in_another_layout(toy, name):
    expected = losses(rig_of(toy, channels_last=True, **LAID_OUT[name]), 3)
    found = resumed_losses(toy, LAID_OUT[name], channels_last=False)
    assert found == pytest.approx(expected[1:], rel=1e-5)


def test_what_compiling_lacks_is_said_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert "triton-windows" in why_not_compiled(torch.device("cuda"), "inductor")
    assert "C++ compiler" in why_not_compiled(CPU, "inductor")
    assert why_not_compiled(CPU, "eager") == ""


def test_where_compiling_is_not_to_be_had_training_goes_on_and_says_so(monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    said = []
    settings = TrainingSettings(torch_compile=True)
    use = device_use(settings, CPU, num_shapes=3, total_steps=10**6, emit=said.append)
    assert use.compile is None
    assert [(one.name, one.value) for one in said] == [("torch_compile", False)]


def test_activations_that_cannot_leave_a_cpu_are_said():
    said = []
    settings = TrainingSettings(gradient_checkpointing=True, cpu_offload_checkpointing=True)
    device_use(settings, CPU, num_shapes=1, total_steps=10, emit=said.append)
    assert [(one.name, one.value) for one in said] == [("cpu_offload_checkpointing", False)]


def test_a_run_too_short_to_pay_for_compiling_is_warned():
    said = []
    settings = TrainingSettings(torch_compile=True, dynamo_backend="eager")
    use = device_use(settings, CPU, num_shapes=17, total_steps=1600, emit=said.append)
    assert use.compile.num_shapes == 34
    assert said[0].severity == "warning"
    assert "17 resolutions" in said[0].message
