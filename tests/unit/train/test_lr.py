"""Every learning-rate schedule has the values of the library that it is named after."""

import warnings

import pytest
import torch
from diffusers.optimization import get_piecewise_constant_schedule
from transformers import optimization

from sdft.errors import ConfigError, EnvironmentFault, UnknownName
from sdft.train.lr import LR_SCHEDULES, build_factor
from sdft.train.lr_custom import custom_factor

BASE_LR = 0.01
TOTAL = 60
WARMUP = 7


def library_factors(make, steps=TOTAL):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=BASE_LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(scheduler.get_last_lr()[0] / BASE_LR)
        optimizer.step()
        scheduler.step()
    return factors


LIBRARY = {
    "constant_with_warmup": lambda o: optimization.get_constant_schedule_with_warmup(o, WARMUP),
    "linear": lambda o: optimization.get_linear_schedule_with_warmup(o, WARMUP, TOTAL),
    "cosine": lambda o: optimization.get_cosine_schedule_with_warmup(o, WARMUP, TOTAL),
    "cosine_with_restarts": lambda o: (
        optimization.get_cosine_with_hard_restarts_schedule_with_warmup(o, WARMUP, TOTAL, 3)
    ),
    "polynomial": lambda o: optimization.get_polynomial_decay_schedule_with_warmup(
        o, WARMUP, TOTAL, power=2.0
    ),
    "inverse_sqrt": lambda o: optimization.get_inverse_sqrt_schedule(o, WARMUP, timescale=11),
    "cosine_with_min_lr": lambda o: optimization.get_cosine_with_min_lr_schedule_with_warmup(
        o, WARMUP, TOTAL, num_cycles=1.5, min_lr_rate=0.1
    ),
    "cosine_warmup_with_min_lr": lambda o: (
        optimization.get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
            o, WARMUP, TOTAL, num_cycles=1.5, min_lr_rate=0.1
        )
    ),
    "warmup_stable_decay": lambda o: optimization.get_wsd_schedule(
        o, WARMUP, 20, num_training_steps=TOTAL, min_lr_ratio=0.1, num_cycles=1.5
    ),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_schedule_equals_the_librarys(name):
    factor = build_factor(
        name,
        total_steps=TOTAL,
        warmup_steps=WARMUP,
        decay_steps=20,
        num_cycles=3,
        power=2.0,
        timescale=11,
        min_lr_ratio=0.1,
        base_lr=BASE_LR,
    )
    expected = library_factors(LIBRARY[name])
    assert [factor(step) for step in range(TOTAL)] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_piecewise_constant_equals_diffusers():
    rules = "1:10,0.1:20,0.01:30,0.005"
    factor = build_factor("piecewise_constant", total_steps=TOTAL, step_rules=rules)
    expected = library_factors(lambda o: get_piecewise_constant_schedule(o, rules))
    assert [factor(step) for step in range(TOTAL)] == pytest.approx(expected, rel=1e-9)


def test_constant_with_a_warm_up_is_refused_with_the_name_to_use():
    with pytest.raises(ConfigError, match="constant_with_warmup"):
        build_factor("constant", total_steps=10, warmup_steps=2)


def test_a_misspelt_schedule_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match='did you mean "cosine"'):
        build_factor("cosinus", total_steps=10)


@pytest.mark.parametrize("rules", ["", "1:10,x", "1,2,3", "10:1:5"])
def test_broken_step_rules_are_refused_with_an_example(rules):
    with pytest.raises(ConfigError, match="step_rules=1:10"):
        build_factor("piecewise_constant", total_steps=10, step_rules=rules)


CUSTOM = {
    "torch.optim.lr_scheduler.StepLR": {"step_size": 9, "gamma": 0.5},
    "torch.optim.lr_scheduler.ExponentialLR": {"gamma": 0.9},
    "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts": {"T_0": 7, "eta_min": 1e-3},
    "torch.optim.lr_scheduler.OneCycleLR": {
        "max_lr": 0.1,
        "total_steps": 60,
        "cycle_momentum": False,
    },
}


@pytest.mark.parametrize("dotted", CUSTOM)
def test_a_class_of_ones_own_gives_its_rates_in_any_order_of_asking(dotted):
    factor = custom_factor(dotted, arguments=CUSTOM[dotted], base_lr=BASE_LR)
    constructor = getattr(torch.optim.lr_scheduler, dotted.rpartition(".")[2])
    expected = library_factors(lambda o: constructor(o, **CUSTOM[dotted]), steps=TOTAL - 1)
    resumed_at = factor(31)
    assert resumed_at == pytest.approx(expected[31], rel=1e-12)
    assert [factor(step) for step in range(TOTAL - 1)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("dotted", "arguments", "words"),
    [
        ("torch.optim.lr_scheduler.StepLRR", {}, r"has no StepLRR(.|\n)*did you mean"),
        ("torch.optim.lr_scheduler.StepLR", {"size": 1}, "does not take these arguments"),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", {}, "by the number of updates alone"),
        (
            "torch.optim.lr_scheduler.CyclicLR",
            {"base_lr": 1e-3, "max_lr": 1e-2},
            "momentum",
        ),
        ("collections.OrderedDict", {}, "is no scheduler|does not take"),
        ("no_such_package.Scheduler", {}, "pip install no_such_package"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_with_the_reason(dotted, arguments, words):
    with pytest.raises((ConfigError, EnvironmentFault), match=words):
        custom_factor(dotted, arguments=arguments, base_lr=BASE_LR)


def test_a_custom_schedule_needs_a_rate_to_scale():
    with pytest.raises(ConfigError, match="learning_rate of 0"):
        custom_factor("torch.optim.lr_scheduler.StepLR", arguments={"step_size": 1}, base_lr=0.0)


def test_every_name_that_settings_take_has_a_schedule():
    from typing import get_args

    from sdft.config.training import TrainingSettings

    names = get_args(TrainingSettings.model_fields["lr_scheduler"].annotation)
    assert set(names) == set(LR_SCHEDULES)
