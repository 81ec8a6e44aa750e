"""Hypernetworks: the formula on real attention modules, and the files of the web UI."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import nn

from sdft.errors import DataError, UserError
from sdft.export.hypernetwork import write_hypernetwork
from sdft.models.attention import UpcastAttention
from sdft.models.bundle import load_bundle
from sdft.models.checkpoint import MemoryTensors, read
from sdft.models.hypernetwork import (
    Hypernetwork,
    RandomPasses,
    apply_hypernetworks,
    context_widths,
    load_hypernetwork,
    new_hypernetwork,
    usable_widths,
)
from sdft.models.hypernetwork_file import HypernetworkFields, is_hypernetwork, read_hypernetwork

TOLERANCE = 1e-6

PROCESSORS = {"sdpa": AttnProcessor2_0, "upcast": UpcastAttention, "plain": AttnProcessor}

DEEP = HypernetworkFields(
    layer_structure=(1.0, 1.5, 2.0, 1.0),
    activation_func="relu",
    is_layer_norm=True,
    use_dropout=True,
    activate_output=True,
    step=7,
    name="deep",
)


@pytest.fixture(scope="module")
def unet(toys):
    return load_bundle(toys["sd1"], parts=("unet",)).unet


NOVEL_AI = HypernetworkFields()


def strong(widths, fields=NOVEL_AI, *, multiplier=1.0, seed=3):
    """Return a hypernetwork whose weights are large enough to see what it does."""
    network = new_hypernetwork(
        widths, fields.structure, initialization="XavierNormal", multiplier=multiplier, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, std=0.1, generator=generator)
    return network.eval().requires_grad_(False)


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


# ---- files


def write(path, network, fields, form, **more):
    tensors = MemoryTensors(network.state_dict()).all_lazy()
    options = {"save_precision": None, "metadata": {"modelspec.title": "t"}} | more
    write_hypernetwork(path, tensors, fields, form=form, **options)
    return path


def web_ui_table(network, **fields):
    """Return what the web UI's own save gives to torch.save."""
    table = {
        width: tuple(OrderedDict(module.state_dict()) for module in network.pair(width))
        for width in network.widths
    }
    return table | fields


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("fields", [HypernetworkFields(step=3, name="n"), DEEP])
def test_a_written_file_reads_back_to_the_same_bits_and_fields(tmp_path, form, fields):
    network = strong([32, 64], fields)
    file = read_hypernetwork(write(tmp_path / f"x.{form}", network, fields, form))
    assert is_hypernetwork(file.path)
    assert file.form == form
    assert file.widths == (32, 64)
    assert file.metadata["modelspec.title"] == "t"
    assert file.fields.structure == fields.structure
    assert (file.fields.step, file.fields.name) == (fields.step, fields.name)
    loaded = load_hypernetwork(file).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[name], w) for name, w in network.state_dict().items())


def test_a_pt_has_the_documented_keys_shapes_and_fields(tmp_path):
    fields = HypernetworkFields(
        step=1200, name="cats", activate_output=False, sd_checkpoint="0123456789"
    )
    network = strong([320, 768], fields)
    table = torch.load(write(tmp_path / "x.pt", network, fields, "pt"), weights_only=True)
    assert [key for key in table if isinstance(key, int)] == [320, 768]
    for width in (320, 768):
        pair = table[width]
        assert len(pair) == 2
        for module, mine in zip(pair, network.pair(width), strict=True):
            assert {name: tuple(tensor.shape) for name, tensor in module.items()} == {
                "linear.0.weight": (2 * width, width),
                "linear.0.bias": (2 * width,),
                "linear.1.weight": (width, 2 * width),
                "linear.1.bias": (width,),
            }
            mine.load_state_dict(module)
    del table[320], table[768], table["sdft_metadata"]
    assert table == {
        "step": 1200,
        "name": "cats",
        "layer_structure": [1.0, 2.0, 1.0],
        "activation_func": "linear",
        "is_layer_norm": False,
        "weight_initialization": "Normal",
        "use_dropout": False,
        "activate_output": False,
        "last_layer_dropout": False,
        "dropout_structure": [0.0, 0.0, 0.0],
        "sd_checkpoint": "0123456789",
        "sd_checkpoint_name": None,
        "optional_info": None,
    }


@pytest.mark.parametrize("older", [False, True])
def test_what_torch_saved_is_read_with_the_values_of_absent_fields(tmp_path, older):
    network = strong([32, 64])
    torch.save(
        web_ui_table(network, step=500, name="theirs"),
        tmp_path / "x.pt",
        _use_new_zipfile_serialization=not older,
    )
    file = read_hypernetwork(tmp_path / "x.pt")
    assert file.fields == HypernetworkFields(step=500, name="theirs")
    loaded = load_hypernetwork(file).state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in network.state_dict().items())
    # NovelAI's have lists for pairs and no fields at all.
    torch.save(
        {width: list(pair) for width, pair in web_ui_table(network).items()}, tmp_path / "n.pt"
    )
    assert read_hypernetwork(tmp_path / "n.pt").fields == HypernetworkFields(name="n")


def test_the_very_old_names_of_the_layers_are_read(tmp_path):
    network = strong([64])
    old = {
        64: [
            {
                n.replace("linear.0", "linear1").replace("linear.1", "linear2"): w
                for n, w in m.items()
            }
            for m in web_ui_table(network)[64]
        ]
    }
    assert "linear2.bias" in old[64][0]
    torch.save(old, tmp_path / "old.pt")
    loaded = load_hypernetwork(read_hypernetwork(tmp_path / "old.pt")).state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in network.state_dict().items())


class Trap:
    """Writes a file if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_pickle_is_run(tmp_path):
    table = web_ui_table(strong([64]), name="trap", optional_info=Trap(tmp_path / "sprung"))
    torch.save(table, tmp_path / "x.pt")
    with pytest.raises(DataError, match="nothing in it was run"):
        read_hypernetwork(tmp_path / "x.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_save_in_fp16_is_rounded_and_an_overflow_is_named(tmp_path):
    network = strong([64])
    path = write(tmp_path / "x.pt", network, HypernetworkFields(), "pt", save_precision="fp16")
    tensors = read_hypernetwork(path).tensors()
    for name, weight in network.state_dict().items():
        assert torch.equal(read(tensors[name]), weight.half())
    network.state_dict()["64.v.linear.1.bias"][3] = 1e6
    named = []
    more = {"save_precision": "fp16", "on_overflow": named.append}
    write(tmp_path / "y.pt", network, HypernetworkFields(), "pt", **more)
    assert named == ["64.v.linear.1.bias"]


def broken(change):
    """Return a table that `change` spoils."""
    table = web_ui_table(strong([32, 64]))
    return change(table) or table


MIXED = {
    "one width deeper": lambda t: t | {64: web_ui_table(strong([64], DEEP))[64]},
    "fields of another structure": lambda t: t | {"activation_func": "relu"},
    "a layer of another width": lambda t: t | {64: t[32]},
    "a module for keys alone": lambda t: t | {64: t[64][:1]},
    "an empty module": lambda t: t | {64: (t[64][0], {})},
    "one layer missing": lambda t: t[32][1].popitem() and None,
    "a number for a tensor": lambda t: t | {64: ({"linear.0.weight": 3}, t[64][1])},
    "an unknown activation": lambda t: t | {"activation_func": "sinus"},
    "an activation that halves": lambda t: t | {"activation_func": "glu"},
    "a structure that ends elsewhere": lambda t: t | {"layer_structure": [1, 2]},
    "a structure of words": lambda t: t | {"layer_structure": ["a"]},
    "a layer under two names": lambda t: t[64][0].update({"linear1.bias": torch.zeros(128)}),
    "a number without end": lambda t: t | {"layer_structure": [1, 10**5000, 1]},
    "a step without end": lambda t: t | {"step": 10**5000},
    "a width without end": lambda t: t | {10**5000: t[64]},
    "a name that is a number": lambda t: t | {"name": 3},
    "a flag that is a text": lambda t: t | {"is_layer_norm": "yes"},
    "a step that is none": lambda t: t | {"step": "many"},
    "whole numbers for weights": lambda t: t[32][0].update(
        {"linear.0.bias": torch.zeros(64).int()}
    ),
    "dropout of another length": lambda t: t | {"use_dropout": True, "dropout_structure": [0, 0]},
}


@pytest.mark.parametrize("case", MIXED)
def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path, case):
    torch.save(broken(MIXED[case]), tmp_path / "x.pt")
    with pytest.raises(DataError) as caught:
        read_hypernetwork(tmp_path / "x.pt")
    assert caught.value.exit_code == 4
    assert str(tmp_path / "x.pt") in str(caught.value)


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.999])
def test_a_truncated_file_is_refused(tmp_path, form, share):
    path = write(tmp_path / f"x.{form}", strong([32, 64]), HypernetworkFields(), form)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError):
        read_hypernetwork(path)


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
