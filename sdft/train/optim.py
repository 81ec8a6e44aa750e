"""Optimizers by name.

In: a name, parameter groups, arguments as written by the user. Out: a torch optimizer.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch

from sdft.errors import ConfigError, EnvironmentFault, nearest
from sdft.events import Emit, SettingChosen
from sdft.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "AdamW": "torch.optim:AdamW",
        "AdamW8bit": "bitsandbytes.optim:AdamW8bit",
        "PagedAdamW": "bitsandbytes.optim:PagedAdamW",
        "PagedAdamW8bit": "bitsandbytes.optim:PagedAdamW8bit",
        "PagedAdamW32bit": "bitsandbytes.optim:PagedAdamW32bit",
        "Lion": "bitsandbytes.optim:Lion32bit",
        "Lion8bit": "bitsandbytes.optim:Lion8bit",
        "PagedLion8bit": "bitsandbytes.optim:PagedLion8bit",
        "SGDNesterov": "torch.optim:SGD",
        "SGDNesterov8bit": "bitsandbytes.optim:SGD8bit",
        "AdaFactor": "transformers.optimization:Adafactor",
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

_STAND_INS = {
    "AdamW8bit": "AdamW",
    "PagedAdamW": "AdamW",
    "PagedAdamW8bit": "AdamW",
    "PagedAdamW32bit": "AdamW",
    "SGDNesterov8bit": "SGDNesterov",
}
"""What takes over where bitsandbytes is missing: the same update with more memory."""

_PACKAGES = {
    "bitsandbytes": "bitsandbytes",
    "dadaptation": "dadaptation",
    "prodigyopt": "prodigyopt",
    "schedulefree": "schedulefree",
}


def parse_arguments(texts: Sequence[str], *, where: str) -> dict[str, Any]:
    """Read `key=value` texts whose values are Python literals.

    Raises: ConfigError naming every text that cannot be read.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, literal = text.partition("=")
        if not equals:
            raise ConfigError(
                what=f'"{text}" is not key=value', where=where, fix='write it like "key=value"'
            )
        try:
            arguments[key.strip()] = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError):
            arguments[key.strip()] = literal.strip()
    return arguments


def build_optimizer(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    *,
    lr: float,
    arguments: Mapping[str, Any],
    emit: Emit,
) -> torch.optim.Optimizer:
    """Return the named optimizer over parameter groups that each hold `params` and `lr`.

    Raises: UnknownName; ConfigError for arguments that it does not take; EnvironmentFault where
        its package is missing and nothing equal can stand in.
    """
    canonical = OPTIMIZERS.canonical(name) if "." not in name else name
    constructor, canonical = _resolve(canonical, emit)
    chosen = _defaults(canonical, groups) | dict(arguments)
    try:
        optimizer: torch.optim.Optimizer = constructor(list(groups), lr=lr, **chosen)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            what=f"{canonical} does not take these arguments: {error}", where="optimizer_args"
        ) from error
    return optimizer


def _defaults(canonical: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if canonical == "AdamW":
        # One kernel for all parameters; also keeps no second copy of the state while it steps.
        return {"fused": True}
    if canonical.startswith("SGDNesterov"):
        return {"momentum": 0.9, "nesterov": True}
    return {}


def _resolve(canonical: str, emit: Emit) -> tuple[Any, str]:
    if "." in canonical:
        return _custom_class(canonical), canonical
    try:
        return OPTIMIZERS.get(canonical), canonical
    except (ImportError, RuntimeError) as error:
        package = OPTIMIZERS.target(canonical).partition(":")[0].partition(".")[0]
        stand_in = _STAND_INS.get(canonical)
        if stand_in is None:
            raise EnvironmentFault(
                what=f"{canonical} needs the package {package}: {error}",
                where="optimizer_type",
                fix=f"python -m pip install {_PACKAGES.get(package, package)}",
            ) from error
        emit(
            SettingChosen(
                name="optimizer_type",
                value=stand_in,
                reason=f"{package} cannot be used here ({error}), so {canonical} is not available",
            )
        )
        return OPTIMIZERS.get(stand_in), stand_in


def _custom_class(dotted: str) -> Any:
    module_name, _, class_name = dotted.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise EnvironmentFault(
            what=f"{module_name} cannot be imported: {error}",
            where="optimizer_type",
            fix=f"python -m pip install {module_name.partition('.')[0]}",
        ) from error
    constructor = getattr(module, class_name, None)
    if constructor is None:
        raise ConfigError(
            what=f"{module_name} has no {class_name}",
            where="optimizer_type",
            fix=nearest(class_name, dir(module)),
        )
    return constructor
