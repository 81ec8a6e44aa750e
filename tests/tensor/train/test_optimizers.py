"""Each optimizer by its name steps as its library's own class does."""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module

import pytest
import torch

from sdft.config.choices import OPTIMIZERS as DECLARED
from sdft.errors import ConfigError, EnvironmentFault, UnknownName
from sdft.events import SettingChosen, ignore
from sdft.train.optim import (
    OPTIMIZERS,
    build_optimizer,
    finds_rate,
    is_schedule_free,
    shown_rate,
    steps_one_by_one,
)
from sdft.train.optimizer_words import parse_arguments, steps_are_relative
from sdft.train.plain_tensors import on_cpu, put_together, taken_apart

NUM_UPDATES = 20

# Name to (library, class, arguments that the name stands for).
LIBRARY = {
    "AdamW": ("torch.optim", "AdamW", {"fused": True}),
    "AdamW8bit": ("bitsandbytes.optim", "AdamW8bit", {}),
    "PagedAdamW": ("bitsandbytes.optim", "PagedAdamW", {}),
    "PagedAdamW8bit": ("bitsandbytes.optim", "PagedAdamW8bit", {}),
    "PagedAdamW32bit": ("bitsandbytes.optim", "PagedAdamW32bit", {}),
    "Lion": ("lion_pytorch", "Lion", {}),
    "Lion8bit": ("bitsandbytes.optim", "Lion8bit", {}),
    "PagedLion8bit": ("bitsandbytes.optim", "PagedLion8bit", {}),
    "SGDNesterov": ("torch.optim", "SGD", {"momentum": 0.9, "nesterov": True}),
    "SGDNesterov8bit": ("bitsandbytes.optim", "SGD8bit", {"momentum": 0.9, "nesterov": True}),
    "DAdaptation": ("dadaptation.experimental", "DAdaptAdamPreprint", {}),
    "DAdaptAdamPreprint": ("dadaptation.experimental", "DAdaptAdamPreprint", {}),
    "DAdaptAdaGrad": ("dadaptation", "DAdaptAdaGrad", {}),
    "DAdaptAdam": ("dadaptation", "DAdaptAdam", {}),
    "DAdaptAdan": ("dadaptation", "DAdaptAdan", {}),
    "DAdaptAdanIP": ("dadaptation.experimental", "DAdaptAdanIP", {}),
    "DAdaptLion": ("dadaptation", "DAdaptLion", {}),
    "DAdaptSGD": ("dadaptation", "DAdaptSGD", {}),
    "Prodigy": ("prodigyopt", "Prodigy", {}),
    "Adafactor": ("transformers.optimization", "Adafactor", {}),
    "RAdamScheduleFree": ("schedulefree", "RAdamScheduleFree", {}),
    "AdamWScheduleFree": ("schedulefree", "AdamWScheduleFree", {}),
    "SGDScheduleFree": ("schedulefree", "SGDScheduleFree", {}),
    "torch.optim.NAdam": ("torch.optim", "NAdam", {}),
    "bitsandbytes.optim.AdEMAMix8bit": ("bitsandbytes.optim", "AdEMAMix8bit", {}),
}

# What the libraries themselves call: not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Consider using.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
]


def weights():
    """Two of 4,096 values and more, which bitsandbytes keeps in 8 bits, and a small one."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(64, 96), (80, 64, 1), (37,)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(update):
    generator = torch.Generator().manual_seed(100 + update)
    return [torch.randn(one.shape, generator=generator) * 0.1 for one in weights()]


def train(optimizer, parameters, *, start=0, stop=NUM_UPDATES):
    for update in range(start, stop):
        for one, gradient in zip(parameters, gradients(update), strict=True):
            one.grad = gradient
        optimizer.step()


def rate_of(name):
    return 1.0 if finds_rate(name) else 1e-3


def built(name, parameters, **arguments):
    rate = rate_of(name)
    groups = [{"params": parameters, "lr": rate, "base_lr": rate}]
    return build_optimizer(name, groups, lr=rate, arguments=arguments, emit=ignore)


def class_of(name):
    module, kind, arguments = LIBRARY[name]
    return getattr(
        pytest.importorskip(module, reason=f"{module} is not installed"), kind
    ), arguments


@pytest.mark.parametrize("name", LIBRARY)
def test_the_first_twenty_updates_are_the_librarys_own(name):
    constructor, arguments = class_of(name)
    ours, theirs = weights(), weights()
    relative = steps_are_relative(name, {})
    reference = constructor(theirs, **({} if relative else {"lr": rate_of(name)}), **arguments)
    if is_schedule_free(reference):
        reference.train()
    optimizer = built(name, ours)
    train(optimizer, ours)
    train(reference, theirs)
    moved = [(one - start).abs().max().item() for one, start in zip(ours, weights(), strict=True)]
    assert min(moved) > 0
    for one, other in zip(ours, theirs, strict=True):
        if name == "Lion":
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_state_that_was_saved_and_read_goes_on_to_the_same_bits(name):
    class_of(name)
    whole, halved = weights(), weights()
    optimizer = built(name, whole)
    train(optimizer, whole)
    first = built(name, halved)
    train(first, halved, stop=8)
    tensors, rest = taken_apart(on_cpu(first.state_dict()))
    second = built(name, halved)
    second.load_state_dict(put_together(tensors, json.loads(json.dumps(rest)), where=name))
    train(second, halved, start=8)
    assert all(torch.equal(one, other) for one, other in zip(whole, halved, strict=True))


def test_every_name_that_settings_take_is_in_the_table_and_in_this_test():
    assert {name.lower() for name in DECLARED} == {name.lower() for name in OPTIMIZERS}
    assert {name.lower() for name in DECLARED} <= {name.lower() for name in LIBRARY}


@pytest.mark.parametrize(
    "name",
    ["AdamW8bit", "PagedAdamW8bit", "Lion8bit", "PagedLion8bit", "SGDNesterov8bit"],
)
def test_eight_bit_states_are_eight_bits_where_they_should_be(name):
    class_of(name)
    parameters = weights()
    optimizer = built(name, parameters)
    train(optimizer, parameters, stop=1)
    dtypes = [optimizer.state[one]["state1"].dtype for one in parameters]
    assert dtypes == [torch.uint8, torch.uint8, torch.float32]


def test_arguments_are_python_values():
    texts = ["weight_decay=0.01", "betas=0.9,0.99", "decouple=True", "kind=mean", "eps = 1e-9"]
    assert parse_arguments(texts, where="optimizer_args") == {
        "weight_decay": 0.01,
        "betas": (0.9, 0.99),
        "decouple": True,
        "kind": "mean",
        "eps": 1e-9,
    }
    optimizer = built("adamw", weights(), betas=(0.8, 0.9))
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_an_argument_that_is_not_taken_is_named():
    with pytest.raises(ConfigError, match=r"AdamW does not take these arguments.*beta3"):
        built("AdamW", weights(), beta3=0.9)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match='did you mean "AdamW8bit"'):
        built("AdamW8bits", weights())
    with pytest.raises(ConfigError, match=r"torch\.optim has no NAdamm"):
        built("torch.optim.NAdamm", weights())


def without(monkeypatch, *packages):
    """Let packages be missing, as they are where they were never installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Prodigy", "python -m pip install prodigyopt"),
        ("DAdaptAdam", "python -m pip install dadaptation"),
        ("DAdaptation", "python -m pip install dadaptation"),
        ("AdamWScheduleFree", "python -m pip install schedulefree"),
        ("no_such_package.Optimizer", "python -m pip install no_such_package"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, name, line):
    without(monkeypatch, "prodigyopt", "dadaptation", "schedulefree")
    with pytest.raises(EnvironmentFault) as fault:
        built(name, weights())
    assert fault.value.problems[0].fix == line


def test_without_bitsandbytes_the_same_update_with_more_memory_takes_over_and_is_said(monkeypatch):
    without(monkeypatch, "bitsandbytes")
    events = []
    groups = [{"params": weights(), "lr": 1e-3, "base_lr": 1e-3}]
    optimizer = build_optimizer("AdamW8bit", groups, lr=1e-3, arguments={}, emit=events.append)
    assert isinstance(optimizer, torch.optim.AdamW)
    (event,) = events
    assert isinstance(event, SettingChosen)
    assert (event.name, event.value) == ("optimizer_type", "AdamW")
    pytest.importorskip("lion_pytorch", reason="lion-pytorch is not installed")
    lion = build_optimizer("Lion", groups, lr=1e-3, arguments={}, emit=ignore)
    assert type(lion).__module__.startswith("lion_pytorch")


def test_without_any_lion_the_line_that_installs_one_is_named(monkeypatch):
    without(monkeypatch, "bitsandbytes", "lion_pytorch")
    with pytest.raises(EnvironmentFault) as fault:
        built("Lion8bit", weights())
    assert fault.value.problems[0].fix == "python -m pip install lion-pytorch"


def test_adafactor_sizes_its_own_steps_unless_told_otherwise():
    relative = built("Adafactor", weights())
    assert relative.param_groups[0]["relative_step"]
    assert relative.param_groups[0]["base_lr"] == 1.0
    warming = built("adafactor", weights(), warmup_init=True, relative_step=False)
    assert warming.param_groups[0]["relative_step"]
    plain = built("Adafactor", weights(), relative_step=False, scale_parameter=False)
    assert plain.param_groups[0]["lr"] == 1e-3
    assert not steps_are_relative("Adafactor", {"relative_step": False})
    assert not steps_are_relative("AdamW", {})


@pytest.mark.parametrize("warmup_init", [False, True])
def test_the_rate_that_is_shown_for_adafactor_is_the_one_it_takes(warmup_init):
    from sdft.train.lr import build_factor

    factor = build_factor("adafactor", total_steps=10, warmup_init=warmup_init)
    parameters = weights()
    optimizer = built("Adafactor", parameters, warmup_init=warmup_init, scale_parameter=False)
    for update in range(10):
        train(optimizer, parameters, start=update, stop=update + 1)
        group, state = optimizer.param_groups[0], optimizer.state[parameters[0]]
        assert factor(update) == pytest.approx(optimizer._get_lr(group, state))


def test_the_rate_that_is_shown_holds_the_factor_that_was_found():
    pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    parameters = weights()
    optimizer = built("Prodigy", parameters)
    before = shown_rate(optimizer.param_groups[0])
    for _ in range(NUM_UPDATES):
        # A slope that stays: the way to the goal is longer than was thought.
        for one in parameters:
            one.grad = torch.full_like(one, 0.1)
        optimizer.step()
    assert before == pytest.approx(1e-6)
    assert shown_rate(optimizer.param_groups[0]) > 2 * before


def test_optimizers_with_common_counts_are_not_stepped_in_parts():
    parameters = weights()
    alone = {"AdamW", "AdamW8bit", "PagedLion8bit", "SGDNesterov", "Adafactor", "Lion"}
    common = {"Prodigy", "DAdaptSGD", "AdamWScheduleFree", "torch.optim.NAdam"}
    for name in alone | common:
        if name in LIBRARY:
            class_of(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert steps_one_by_one(built(name, parameters)) == (name in alone), name


def test_a_class_of_ones_own_with_a_known_name_is_not_taken_for_the_known_one():
    class AdamW(torch.optim.SGD):
        pass

    assert not steps_one_by_one(AdamW(weights(), lr=1.0))
    assert import_module("torch.optim").AdamW is not AdamW
