"""Hypernetworks as modules: the formula in real attention layers, their structure, their draws."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import nn

from sdft.errors import UserError
from sdft.models.attention import UpcastAttention
from sdft.models.bundle import load_bundle
from sdft.models.hypernetwork import (
    Hypernetwork,
    RandomPasses,
    apply_hypernetworks,
    context_widths,
    new_hypernetwork,
    usable_widths,
)
from sdft.models.hypernetwork_file import HypernetworkFields, read_hypernetwork
from tests.tensor.models.hypernetworks import DEEP, strong, write

TOLERANCE = 1e-6

PROCESSORS = {"sdpa": AttnProcessor2_0, "upcast": UpcastAttention, "plain": AttnProcessor}


@pytest.fixture(scope="module")
def unet(toys):
    return load_bundle(toys["sd1"], parts=("unet",)).unet


def inputs_of(unet, seed=5):
    generator = torch.Generator().manual_seed(seed)
    latents_BCHW = torch.randn(2, 4, 16, 16, generator=generator)
    contexts_BSD = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)
    return latents_BCHW, torch.tensor([10, 700]), contexts_BSD


def plain_attention(layer, hidden_BSD, context_BSD, key_context_BSD, value_context_BSD):
    """Softmax attention out of its formula, in float64."""
    layer = copy.deepcopy(layer).double()
    query, key, value = (
        project(x.double()).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for project, x in (
            (layer.to_q, hidden_BSD),
            (layer.to_k, key_context_BSD),
            (layer.to_v, value_context_BSD),
        )
    )
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    mixed = scores.softmax(dim=-1) @ value
    return layer.to_out[0](mixed.transpose(1, 2).flatten(2))


def plain_module(weights, width, side, x_BSD, multiplier):
    """x + multiplier * (W1 (W0 x + b0) + b1), NovelAI's module, from its tensors."""
    w0, b0, w1, b1 = (
        weights[f"{width}.{side}.linear.{name}"].double()
        for name in ("0.weight", "0.bias", "1.weight", "1.bias")
    )
    x_BSD = x_BSD.double()
    return x_BSD + multiplier * ((x_BSD @ w0.T + b0) @ w1.T + b1)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("kind", ["attn1", "attn2"])
def test_an_attention_layer_computes_the_formula_with_one_or_two_hypernetworks(
    unet, processor, kind
):
    unet = copy.deepcopy(unet)
    unet.set_attn_processor(PROCESSORS[processor]())
    widths = context_widths(unet)
    assert widths == (32, 64)
    first, second = strong(widths, multiplier=0.8), strong(widths, multiplier=-0.5, seed=4)
    layer = getattr(unet.down_blocks[0].attentions[0].transformer_blocks[0], kind)
    generator = torch.Generator().manual_seed(1)
    hidden_BSD = torch.randn(2, 20, 32, generator=generator)
    text_BSD = torch.randn(2, 9, 64, generator=generator)
    context = hidden_BSD if kind == "attn1" else text_BSD
    width = context.shape[-1]
    bare = layer(hidden_BSD, encoder_hidden_states=None if kind == "attn1" else text_BSD)

    apply_hypernetworks(unet, [first])
    once = layer(hidden_BSD, encoder_hidden_states=None if kind == "attn1" else text_BSD)
    ones = {side: plain_module(first.state_dict(), width, side, context, 0.8) for side in "kv"}
    wanted = plain_attention(layer, hidden_BSD, context, ones["k"], ones["v"])
    assert (once - wanted).abs().max() < TOLERANCE
    assert (once - bare).abs().max() > 0.01

    unet.set_attn_processor(PROCESSORS[processor]())
    apply_hypernetworks(unet, [first, second])
    twice = layer(hidden_BSD, encoder_hidden_states=None if kind == "attn1" else text_BSD)
    twos = {side: plain_module(second.state_dict(), width, side, ones[side], -0.5) for side in "kv"}
    wanted = plain_attention(layer, hidden_BSD, context, twos["k"], twos["v"])
    assert (twice - wanted).abs().max() < TOLERANCE


def test_hypernetworks_applied_in_two_calls_come_one_after_the_other(unet):
    widths = context_widths(unet)
    first, second = strong(widths), strong(widths, seed=4)
    together, one_by_one = copy.deepcopy(unet), copy.deepcopy(unet)
    apply_hypernetworks(together, [first, second])
    apply_hypernetworks(one_by_one, [first])
    apply_hypernetworks(one_by_one, [second])
    with torch.no_grad():
        assert torch.equal(together(*inputs_of(unet))[0], one_by_one(*inputs_of(unet))[0])


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_multiplier_of_0_changes_no_bit_of_the_output(unet, processor):
    changed = copy.deepcopy(unet)
    plain = copy.deepcopy(unet)
    for one in (changed, plain):
        one.set_attn_processor(PROCESSORS[processor]())
    widths = context_widths(unet)
    apply_hypernetworks(changed, [strong(widths, DEEP, multiplier=0.0)])
    with torch.no_grad():
        assert torch.equal(changed(*inputs_of(unet))[0], plain(*inputs_of(unet))[0])


def test_the_u_net_keeps_the_names_of_its_weights_and_a_module_reaches_its_output(unet):
    changed = copy.deepcopy(unet)
    network = strong(context_widths(unet))
    apply_hypernetworks(changed, [network])
    assert changed.state_dict().keys() == unet.state_dict().keys()
    assert network.widths == (32, 64)
    with torch.no_grad():
        difference = changed(*inputs_of(unet))[0] - unet(*inputs_of(unet))[0]
    assert difference.abs().max() > 1e-3


INDICES = [
    # NovelAI's own.
    ({}, {0: 2, 1: 2}),
    ({"activation_func": "relu", "activate_output": False}, {0: 2, 2: 2}),
    ({"activation_func": "relu", "activate_output": True}, {0: 2, 2: 2}),
    ({"is_layer_norm": True}, {0: 2, 1: 1, 2: 2, 3: 1}),
    ({"activation_func": "Mish", "is_layer_norm": True}, {0: 2, 2: 1, 3: 2, 5: 1}),
    ({"use_dropout": True}, {0: 2, 1: 2}),
    ({"use_dropout": True, "last_layer_dropout": True}, {0: 2, 2: 2}),
    ({"use_dropout": True, "layer_structure": (1, 2, 2, 1)}, {0: 2, 2: 2, 3: 2}),
    (
        {"use_dropout": True, "layer_structure": (1, 2, 2, 1), "last_layer_dropout": True},
        {0: 2, 2: 2, 4: 2},
    ),
    ({"use_dropout": True, "dropout_structure": (0.0, 0.1, 0.2)}, {0: 2, 2: 2}),
    ({"dropout_structure": (0.0, 0.1, 0.2)}, {0: 2, 1: 2}),
    (
        {"layer_structure": (1, 1.5, 0.5, 1), "activation_func": "prelu"},
        {0: 2, 1: 1, 2: 2, 3: 1, 4: 2, 5: 1},
    ),
]
"""Fields, and by place in the stack the axes of the weight there: 2 of a linear layer, 1 else."""


@pytest.mark.parametrize(("fields", "expected"), INDICES)
def test_the_places_of_the_layers_follow_from_the_fields(fields, expected):
    network = Hypernetwork([64], HypernetworkFields(**fields).structure)
    weights = network.pair(64)[0].state_dict()
    axes = {int(name.split(".")[1]): w.dim() for name, w in weights.items() if "weight" in name}
    assert {place: axes.get(place) for place in expected} == expected
    assert axes.keys() == expected.keys()
    assert network.pair(64)[0](torch.zeros(1, 3, 64)).shape == (1, 3, 64)


def test_first_weights_are_normal_and_follow_from_the_seed():
    structure = HypernetworkFields().structure
    network = new_hypernetwork([320], structure, initialization="Normal", seed=1)
    again = new_hypernetwork([320], structure, initialization="Normal", seed=1)
    other = new_hypernetwork([320], structure, initialization="Normal", seed=2)
    weight = network.state_dict()["320.k.linear.0.weight"]
    assert weight.shape == (640, 320)
    assert weight.std() == pytest.approx(0.01, rel=0.02)
    assert abs(weight.mean()) < 1e-4
    assert torch.equal(weight, again.state_dict()["320.k.linear.0.weight"])
    assert not torch.equal(weight, other.state_dict()["320.k.linear.0.weight"])
    assert not network.state_dict()["320.v.linear.1.bias"].any()


@pytest.mark.parametrize(
    ("initialization", "activation", "std"),
    [
        ("XavierUniform", "linear", math.sqrt(2 / (320 + 640))),
        ("XavierNormal", "linear", math.sqrt(2 / (320 + 640))),
        ("KaimingUniform", "relu", math.sqrt(2 / 320)),
        ("KaimingNormal", "tanh", math.sqrt(2 / 320)),
        ("KaimingNormal", "leakyrelu", math.sqrt(2 / (1 + 0.01**2) / 320)),
    ],
)
def test_the_other_ways_to_draw_first_weights_have_their_spread(initialization, activation, std):
    structure = HypernetworkFields(activation_func=activation).structure
    network = new_hypernetwork([320], structure, initialization=initialization, seed=1)
    weights = network.state_dict()
    assert weights["320.k.linear.0.weight"].std() == pytest.approx(std, rel=0.02)
    assert not weights["320.k.linear.0.bias"].any()


def test_a_new_hypernetwork_draws_nothing_from_the_generator_of_the_process():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    new_hypernetwork([64], DEEP.structure, initialization="Normal", seed=1)
    assert torch.equal(torch.rand(3), wanted)


def test_a_layer_without_values_is_refused():
    fields = HypernetworkFields(layer_structure=(1, 0.01, 1))
    with pytest.raises(UserError, match="width 32 would have no values"):
        new_hypernetwork([32, 640], fields.structure, initialization="Normal", seed=1)


def test_dropout_of_a_pass_follows_from_the_seed_and_the_number_of_the_pass():
    network = Hypernetwork([64], DEEP.structure).train()
    probe = nn.Identity()
    passes = RandomPasses(network, seed=9)
    passes.before(probe)

    def drawn():
        probe(torch.zeros(1))
        return network.pair(64)[0](torch.ones(1, 50, 64)).detach()

    first, second = drawn(), drawn()
    assert not torch.equal(first, second)
    passes.num_passes = 1
    torch.rand(7)
    assert torch.equal(drawn(), second)
    network.eval()
    drawn()
    assert passes.num_passes == 2


def test_each_of_several_processes_drops_other_values_of_a_pass():
    network = Hypernetwork([64], DEEP.structure).train()
    drawn = []
    for rank in (0, 1, 1):
        probe = nn.Identity()
        RandomPasses(network, seed=9, rank=rank).before(probe)
        probe(torch.zeros(1))
        drawn.append(network.pair(64)[0](torch.ones(1, 50, 64)).detach())
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1], drawn[2])


def test_widths_of_another_family_are_refused_and_some_of_the_right_ones_are_enough(unet, tmp_path):
    def file_of(*widths):
        path = tmp_path / f"{widths}.pt"
        return read_hypernetwork(write(path, strong(widths), HypernetworkFields(), "pt"))

    assert usable_widths(file_of(32, 64), unet) == (32, 64)
    assert usable_widths(file_of(32), unet) == (32,)
    # Made with the text widths of both families.
    assert usable_widths(file_of(32, 64, 128), unet) == (32, 64)
    for widths in ((128,), (32, 128)):
        with pytest.raises(UserError, match="attention layers have 32, 64") as caught:
            usable_widths(file_of(*widths), unet)
        assert caught.value.exit_code == 2
