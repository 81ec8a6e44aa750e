"""What `accelerate launch` was told by its own config file, as settings of ours.

In: the environment variables that it sets in each process. Out: settings below all others, what is
left of its config unused, and what cannot be met. Weights are spread by ourselves (FSDP2), not by
accelerate, so a setting is taken by its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdft.config.values import Given
from sdft.errors import Problem

PLACE = "accelerate's config"

_NOT_TAKEN = {
    "fsdp_offload_params": "weights and optimizer stay on the GPU",
    "fsdp_activation_checkpointing_offload": "activations stay on the GPU",
    "fsdp_auto_wrap_policy": "networks are always spread by U-Net block and text encoder layer",
    "fsdp_transformer_cls_to_wrap": "networks are always spread by U-Net block and text encoder"
    " layer",
    "fsdp_state_dict_type": "checkpoints and states are always whole files, which any number of"
    " processes can go on from",
    "fsdp_ignored_modules": "all that is trained is spread",
}
"""Of version 2: what has no counterpart here, by the name in accelerate's file, and why not."""


def settings_of_accelerate(environment: Mapping[str, str]) -> dict[str, Given]:
    """Return the settings that accelerate's config asks for."""
    found: dict[str, Given] = {}
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    # "no" also stands for nothing that was said.
    if precision != "no":
        found["mixed_precision"] = _given("mixed_precision", precision)
    if not _asks(environment, "ACCELERATE_USE_FSDP"):
        return found
    found["fsdp"] = _given("fsdp_version", True)
    if "FSDP_RESHARD_AFTER_FORWARD" in environment:
        reshards = _asks(environment, "FSDP_RESHARD_AFTER_FORWARD")
        name = "fsdp_reshard_after_forward"
        found[name] = _given(name, reshards)
    if _asks(environment, "FSDP_ACTIVATION_CHECKPOINTING"):
        found["gradient_checkpointing"] = _given("fsdp_activation_checkpointing", True)
    return found


def unused_of_accelerate(environment: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what accelerate's config asks for in vain; it decides memory and time, no result."""
    if not _asks(environment, "ACCELERATE_USE_FSDP"):
        return
    for name, reason in _NOT_TAKEN.items():
        value = environment.get(name.upper(), "false")
        if value.lower() not in ("false", "none", "no_wrap", "full_state_dict", ""):
            yield Problem(f"{name} ({value}) is not taken: {reason}", PLACE)


def problems_of_accelerate(environment: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what of accelerate's config cannot be met."""
    version = environment.get("FSDP_VERSION", "1")
    if _asks(environment, "ACCELERATE_USE_FSDP") and version != "2":
        yield Problem(
            f"FSDP of version {version} is asked for; here it is version 2",
            _where("fsdp_version"),
            "`accelerate to-fsdp2 --config_file FILE --output_file FILE` rewrites it",
        )
    if _asks(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        yield Problem(
            "several kinds of parallelism are asked for; here each process takes other images",
            _where("parallelism_config"),
            "leave it out, and use FSDP alone",
        )
    if _asks(environment, "ACCELERATE_USE_DEEPSPEED"):
        yield Problem(
            "DeepSpeed is asked for, which is not used here; its ZeRO stages are settings of FSDP2",
            _where("zero_stage"),
            _instead_of_zero(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")),
        )
    if _asks(environment, "ACCELERATE_USE_MEGATRON_LM"):
        yield Problem(
            "Megatron-LM is asked for, which knows no U-Net",
            _where("distributed_type"),
            "choose multi-GPU or FSDP of version 2 in `accelerate config`",
        )


def _instead_of_zero(stage: str) -> str:
    """Return which settings do what a ZeRO stage does.

    Source: Rajbhandari et al. 2019 (arXiv 1910.02054), section 5: stage 1 spreads the optimizer's
    state, 2 the gradients too, 3 the weights too.
    """
    if stage == "0":
        return "choose multi-GPU in `accelerate config`: stage 0 spreads nothing"
    nearest = {
        "1": "--fsdp --fsdp_reshard_after_forward false",
        "2": "--fsdp --fsdp_reshard_after_forward false",
        "3": "--fsdp",
    }
    if stage in nearest:
        return f"choose multi-GPU in `accelerate config`, and add {nearest[stage]}"
    return (
        "choose multi-GPU in `accelerate config`, and add --fsdp for stage 3, --fsdp"
        " --fsdp_reshard_after_forward false for 2 and 1"
    )


def _asks(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() in ("true", "1")


def _given(name: str, value: object) -> Given:
    return Given(value=value, where=_where(name), folder=None)


def _where(name: str) -> str:
    return f"{PLACE}, {name}"
