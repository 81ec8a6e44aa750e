"""Learning rates from a scheduler class of the user's choice.

In: `module.Class`, its arguments, the base rate. Out: a Factor like those of `lr`.
The class is run on an optimizer of its own, one update at a time, and its rates are remembered:
so a resumed run has them again without a state, and the class cannot touch the real optimizer.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch

from sdft.errors import ConfigError, EnvironmentFault, nearest
from sdft.train.lr import Factor

_WHERE = "lr_scheduler_type"


def custom_factor(dotted: str, *, arguments: Mapping[str, Any], base_lr: float) -> Factor:
    """Return the factor that a scheduler class gives after so many updates.

    Other learning rates than `base_lr` follow in proportion.

    Raises: EnvironmentFault where the module is missing; ConfigError where the class does not
        exist, does not take the arguments, or wants to know the loss.
    """
    constructor = _class_of(dotted)
    if base_lr <= 0:
        raise ConfigError(what=f"{dotted} cannot scale a learning_rate of {base_lr}", where=_WHERE)
    optimizer = _RateHolder(base_lr)
    try:
        scheduler = constructor(optimizer, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            what=f"{dotted} does not take these arguments: {error}", where="lr_scheduler_args"
        ) from error
    if not callable(getattr(scheduler, "step", None)):
        raise ConfigError(what=f"{dotted} is no scheduler: it has no step()", where=_WHERE)
    rates = [float(optimizer.param_groups[0]["lr"])]

    def factor(step: int) -> float:
        while len(rates) <= step:
            optimizer.step()
            with warnings.catch_warnings():
                # Some classes warn of a use of theirs that the person cannot change.
                warnings.simplefilter("ignore")
                scheduler.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates[step] / base_lr

    # Errors of the first step are told before the run, not after loading the model.
    try:
        factor(1)
    except TypeError as error:
        raise ConfigError(
            what=f"{dotted} cannot be stepped by the number of updates alone: {error}",
            where=_WHERE,
            fix="use a scheduler that does not ask for the loss",
        ) from error
    return factor


class _RateHolder(torch.optim.Optimizer):
    """Has a learning rate and nothing else.

    A class that also steers momentum refuses it, instead of being obeyed by half.
    """

    def __init__(self, lr: float) -> None:
        super().__init__([torch.nn.Parameter(torch.zeros(1))], {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        """Do nothing."""


def _class_of(dotted: str) -> Any:
    module_name, _, class_name = dotted.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise EnvironmentFault(
            what=f"{module_name} cannot be imported: {error}",
            where=_WHERE,
            fix=f"python -m pip install {module_name.partition('.')[0]}",
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(
            what=f"{module_name} has no {class_name}",
            where=_WHERE,
            fix=nearest(class_name, dir(module)),
        )
    return found
