"""Optimizers by name.

In: a name, parameter groups, arguments as written by the user. Out: a torch optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from sdft.errors import ConfigError, EnvironmentFault, nearest
from sdft.events import Emit, SettingChosen
from sdft.registry import Registry
from sdft.train.optimizer_words import STAND_INS, steps_are_relative

OPTIMIZERS = Registry(
    "optimizer",
    {
        "AdamW": "torch.optim:AdamW",
        "AdamW8bit": "bitsandbytes.optim:AdamW8bit",
        "PagedAdamW": "bitsandbytes.optim:PagedAdamW",
        "PagedAdamW8bit": "bitsandbytes.optim:PagedAdamW8bit",
        "PagedAdamW32bit": "bitsandbytes.optim:PagedAdamW32bit",
        # The same update as lion-pytorch's, without another package.
        "Lion": "bitsandbytes.optim:Lion32bit",
        "Lion8bit": "bitsandbytes.optim:Lion8bit",
        "PagedLion8bit": "bitsandbytes.optim:PagedLion8bit",
        "SGDNesterov": "torch.optim:SGD",
        "SGDNesterov8bit": "bitsandbytes.optim:SGD8bit",
        "Adafactor": "transformers.optimization:Adafactor",
        "DAdaptation": "dadaptation.experimental:DAdaptAdamPreprint",
        "DAdaptAdamPreprint": "dadaptation.experimental:DAdaptAdamPreprint",
        "DAdaptAdaGrad": "dadaptation:DAdaptAdaGrad",
        "DAdaptAdam": "dadaptation:DAdaptAdam",
        "DAdaptAdan": "dadaptation:DAdaptAdan",
        "DAdaptAdanIP": "dadaptation.experimental:DAdaptAdanIP",
        "DAdaptLion": "dadaptation:DAdaptLion",
        "DAdaptSGD": "dadaptation:DAdaptSGD",
        "Prodigy": "prodigyopt:Prodigy",
        "RAdamScheduleFree": "schedulefree:RAdamScheduleFree",
        "AdamWScheduleFree": "schedulefree:AdamWScheduleFree",
        "SGDScheduleFree": "schedulefree:SGDScheduleFree",
    },
)

_FINDS_RATE = ("dadapt", "prodigy")
"""Beginnings of the names of optimizers that find the size of their steps by themselves."""

_ONE_BY_ONE = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "RMSprop",
    "SGD",
)
"""Classes, less endings such as 8bit, that keep nothing but each weight's own state."""

_LIBRARIES = ("torch", "transformers", "bitsandbytes", "lion_pytorch")
"""Whose classes those are."""

_PACKAGES = {
    "lion_pytorch": "lion-pytorch",
}
"""Packages that pip knows by another name than Python does."""


def build_optimizer(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    *,
    lr: float,
    arguments: Mapping[str, Any],
    emit: Emit,
    keeps_32_bits: bool = False,
) -> torch.optim.Optimizer:
    """Return the named optimizer over parameter groups that each hold `params` and `lr`.

    With `keeps_32_bits` an 8-bit one keeps float32 states whatever the sizes of its weights.

    Raises: UnknownName; ConfigError for arguments that it does not take; EnvironmentFault where
        its package is missing and nothing equal can stand in.
    """
    constructor, canonical = _resolve(name, emit)
    constructor = _unpaged(constructor, groups, emit)
    chosen = _defaults(canonical) | dict(arguments)
    if keeps_32_bits and canonical.endswith("8bit"):
        chosen["min_8bit_size"] = 1 << 62
    rates: dict[str, Any] = {"lr": lr}
    if steps_are_relative(name, arguments):
        # Adafactor takes no rate then; warmup_init asks for relative steps as sd-scripts reads it.
        chosen["relative_step"] = True
        rates, groups = {}, [_without_rate(group) for group in groups]
    try:
        optimizer: torch.optim.Optimizer = constructor(list(groups), **rates, **chosen)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            what=f"{canonical} does not take these arguments: {error}", where="optimizer_args"
        ) from error
    if is_schedule_free(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def finds_rate(name: str) -> bool:
    """Tell whether the optimizer finds its learning rate, `lr` being a factor near 1."""
    return name.rpartition(".")[2].lower().startswith(_FINDS_RATE)


def is_schedule_free(optimizer: Any) -> bool:
    """Tell whether the weights that it trains are others than those to save and draw with."""
    return callable(getattr(optimizer, "train", None)) and callable(
        getattr(optimizer, "eval", None)
    )


def steps_one_by_one(optimizer: Any) -> bool:
    """Tell whether each weight's update looks at no other weight and counts no common steps."""
    kind = type(optimizer)
    plain = kind.__name__.removeprefix("Paged").removesuffix("bit").rstrip("0123456789")
    return plain in _ONE_BY_ONE and kind.__module__.partition(".")[0] in _LIBRARIES


def steps_value_by_value(optimizer: Any) -> bool:
    """Tell whether the update of a value looks at no other value, not even of its own weight."""
    return steps_one_by_one(optimizer) and "Adafactor" not in type(optimizer).__name__


def lay_out_states(
    optimizer: Any, real_of: Callable[[Tensor], Tensor] = lambda known: known
) -> None:
    """Give states that were loaded the strides of their weights, such as channels last.

    A file of states knows no strides, and an optimizer's kernel may take values in the order in
    which they lie in memory. `real_of` gives the weight behind one that the optimizer knows.
    """
    for known, values in optimizer.state.items():
        weight = real_of(known)
        for name, value in values.items():
            if not isinstance(value, Tensor) or value.shape != weight.shape:
                continue
            if value.stride() != weight.stride():
                like = torch.empty_like(weight, dtype=value.dtype, device=value.device)
                values[name] = like.copy_(value)


def shown_rate(group: Mapping[str, Any]) -> float:
    """Return the rate of a group for people: with the factor that D-Adaptation or Prodigy found."""
    return float(group["lr"]) * float(group.get("d", 1.0))


def _without_rate(group: Mapping[str, Any]) -> dict[str, Any]:
    # The schedule gives the relative step itself, for people; the optimizer does not read it.
    return {**group, "lr": None, "base_lr": 1.0}


def _defaults(canonical: str) -> dict[str, Any]:
    if canonical == "AdamW":
        # One kernel for all parameters; also keeps no second copy of the state while it steps.
        return {"fused": True}
    if canonical.startswith("SGDNesterov"):
        return {"momentum": 0.9, "nesterov": True}
    return {}


def _resolve(name: str, emit: Emit) -> tuple[Any, str]:
    """Return the class and the name of it that is used in the end."""
    if "." in name:
        return _custom_class(name), name
    canonical = OPTIMIZERS.canonical(name)
    try:
        return OPTIMIZERS.get(canonical), canonical
    except (ImportError, RuntimeError) as error:
        package = OPTIMIZERS.target(canonical).partition(":")[0].partition(".")[0]
        stand_in = STAND_INS.get(canonical)
        if stand_in is None:
            raise EnvironmentFault(
                what=f"{canonical} needs the package {package}: {error}",
                where="optimizer_type",
                fix=f"python -m pip install {_PACKAGES.get(package, package)}",
                key="optimizer_package_missing",
                values={"optimizer": canonical, "package": package, "error": error},
            ) from error
        found = _resolve(stand_in, emit)
        emit(
            SettingChosen(
                name="optimizer_type",
                value=stand_in,
                reason=f"{package} cannot be used here ({error}), so {canonical} is not available",
            )
        )
        return found


def _unpaged(constructor: Any, groups: Sequence[Mapping[str, Any]], emit: Emit) -> Any:
    """Return the class without paging where the weights are in main memory already."""
    paged = constructor.__name__
    on_cpu = all(weight.device.type == "cpu" for group in groups for weight in group["params"])
    if not paged.startswith("Paged") or not on_cpu:
        return constructor
    plain = paged.removeprefix("Paged")
    reason = "on a CPU there is no other memory to page to"
    emit(SettingChosen(name="optimizer_type", value=plain, reason=reason))
    return getattr(import_module("bitsandbytes.optim"), plain)


def _custom_class(dotted: str) -> Any:
    module_name, _, class_name = dotted.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise EnvironmentFault(
            what=f"{module_name} cannot be imported: {error}",
            where="optimizer_type",
            fix=f"python -m pip install {_package_of(module_name)}",
        ) from error
    constructor = getattr(module, class_name, None)
    if constructor is None:
        raise ConfigError(
            what=f"{module_name} has no {class_name}",
            where="optimizer_type",
            fix=nearest(class_name, dir(module)),
        )
    return constructor


def _package_of(module_name: str) -> str:
    top = module_name.partition(".")[0]
    return _PACKAGES.get(top, top)
