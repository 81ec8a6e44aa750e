"""Settings of noise, loss, optimizer, learning rate and moving average."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator

from sdft.config.choices import OPTIMIZERS, TORCH_OPTIMIZERS, canonical
from sdft.config.settings import setting

_ARGUMENTS = "name=value pairs, such as weight_decay=0.01"
_RATES = "name=rate pairs, such as IN04=1e-6 or unet.*.attn2.*=0"

NUM_BLOCKS = 29
"""TIME, IN00 to IN11, M00 to M02, OUT00 to OUT11, END: see sdft.train.parts."""

_BLOCK_RATES = f"{NUM_BLOCKS} learning rates, one for each block"
_STEPS_OR_SHARE = "a number of steps, a share below 1, or a percentage such as 10%"


def steps_or_share(value: object) -> object:
    """Read `500` as 500 steps, `0.1` and `10%` as a share of the run.

    Raises: ValueError for a negative number, a share of 1 or more, or a broken step.
    """
    if isinstance(value, str):
        text = value.strip()
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if text.endswith("%") and number >= 1:
            raise ValueError("a share must be below 100%")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise ValueError(f"it must be {_STEPS_OR_SHARE}")
    if not 0 <= number < 1e15 or (number >= 1 and number != int(number)):
        raise ValueError(f"it must be {_STEPS_OR_SHARE}")
    return int(number) if number == int(number) else number


def argument_list(value: object) -> object:
    """Take one text for a list of one, and check that each entry is `name=value`."""
    entries = [value] if isinstance(value, str) else value
    if isinstance(entries, list | tuple):
        for entry in entries:
            name, equals, _ = entry.partition("=") if isinstance(entry, str) else ("", "", "")
            if not equals or not name.strip().isidentifier():
                raise ValueError(f"each entry must be name=value; {entry!r} is not")
        return tuple(entries)
    return entries


def rates_by_name(value: object) -> object:
    """Take one text for a list of one, and check that each entry is `pattern=rate`.

    Raises: ValueError.
    """
    entries = [value] if isinstance(value, str) else value
    if isinstance(entries, list | tuple):
        for entry in entries:
            pattern, equals, rate = str(entry).rpartition("=")
            if not equals or not pattern.strip() or not float(rate) >= 0:
                raise ValueError(f"each entry must be {_RATES}; {entry!r} is not")
        return tuple(str(entry).replace(" ", "") for entry in entries)
    return entries


def block_rates(value: object) -> object:
    """Read `1e-6,2e-6,...`, or a list of numbers, as one rate for each block.

    Raises: ValueError for another count of numbers.
    """
    parts = [value] if isinstance(value, str | int | float) else value
    if not isinstance(parts, list | tuple):
        return parts
    rates = [float(rate) for part in parts for rate in str(part).split(",")]
    if rates and (len(rates) != NUM_BLOCKS or min(rates) < 0):
        raise ValueError(f"it must be {_BLOCK_RATES}")
    return tuple(rates)


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _known_optimizer(name: str) -> str:
    spelling = canonical(name or "AdamW", OPTIMIZERS)
    if spelling in OPTIMIZERS or "." in spelling:
        return spelling
    torch_name = canonical(name, TORCH_OPTIMIZERS)
    # Any other name is refused here, not when the model has been loaded.
    if torch_name not in TORCH_OPTIMIZERS:
        raise ValueError("unknown name")
    return f"torch.optim.{torch_name}"


NamePatterns = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
RatesByName = Annotated[tuple[str, ...], BeforeValidator(rates_by_name)]
BlockRates = Annotated[tuple[float, ...], BeforeValidator(block_rates)]
StepsOrShare = Annotated[int | float, BeforeValidator(steps_or_share)]
Arguments = Annotated[tuple[str, ...], BeforeValidator(argument_list)]
OptimizerName = Annotated[str, AfterValidator(_known_optimizer)]


class ObjectiveSettings(
    BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
):
    """The part of the training settings that decides what an optimizer step does."""

    noise_offset: float | None = setting(
        None, help="Shift the noise of each channel by this much; 0.1 is usual.", group="noise"
    )
    noise_offset_random_strength: bool = setting(
        False, help="Draw the shift from 0 to noise_offset.", group="noise"
    )
    adaptive_noise_scale: float | None = setting(
        None, help="Add this times the latent's mean to noise_offset.", group="noise"
    )
    multires_noise_iterations: int | None = setting(
        None, ge=0, help="Layers of coarser noise to add; 6 to 10 is usual.", group="noise"
    )
    multires_noise_discount: float = setting(
        0.3, gt=0, le=1, help="How much weaker each coarser layer is.", group="noise"
    )
    ip_noise_gamma: float | None = setting(
        None, ge=0, help="Disturb the input by this much extra noise; 0.1 is usual.", group="noise"
    )
    ip_noise_gamma_random_strength: bool = setting(
        False, help="Draw the extra noise's strength from 0 to ip_noise_gamma.", group="noise"
    )
    zero_terminal_snr: bool = setting(
        False, help="Let the last timestep be pure noise; for models that predict v.", group="noise"
    )
    min_timestep: int = setting(
        0, ge=0, le=999, help="Smallest timestep that is trained.", group="noise"
    )
    max_timestep: int = setting(
        1000, ge=1, le=1000, help="Timesteps stay below this one.", group="noise"
    )

    loss_type: Literal["l1", "l2", "huber", "smooth_l1"] = setting(
        "l2", help="How the error of one value is measured.", group="loss"
    )
    huber_schedule: Literal["constant", "exponential", "snr"] = setting(
        "snr", help="How huber_c changes with the timestep.", group="loss"
    )
    huber_c: float = setting(0.1, gt=0, help="Where Huber loss turns linear.", group="loss")
    huber_scale: float = setting(1.0, gt=0, help="Factor of huber_c.", group="loss")
    min_snr_gamma: float | None = setting(
        None, gt=0, help="Limit the weight of easy timesteps; 5 is usual.", group="loss"
    )
    scale_v_pred_loss_like_noise_pred: bool = setting(
        False, help="Weigh the loss of v as if noise were predicted.", group="loss"
    )
    v_pred_like_loss: float | None = setting(
        None, ge=0, help="Add this times the loss that predicting v would have.", group="loss"
    )
    debiased_estimation_loss: bool = setting(
        False,
        help="Weigh timesteps by the inverse root of their signal-to-noise ratio.",
        group="loss",
    )

    masked_loss: bool = setting(
        False, help="Use the pictures of conditioning_data_dir as masks of the loss.", group="loss"
    )
    masked_loss_mean: Literal["mask", "picture"] = setting(
        "mask",
        help="Divide a masked loss by the mask's area, or, as sd-scripts, by the picture's.",
        group="loss",
    )

    learning_rate: float = setting(
        2e-6, ge=0, help="Learning rate of the U-Net.", group="optimizer", common=True
    )
    learning_rate_te: float | None = setting(
        None,
        ge=0,
        help="Learning rate of the text encoder; learning_rate if not set.",
        group="optimizer",
    )
    freeze: NamePatterns = setting(
        (),
        help="Blocks such as IN04, or patterns such as unet.*.attn1.*, that are not trained.",
        group="optimizer",
        wanted="blocks such as IN04, or patterns of names",
    )
    lr_by_name: RatesByName = setting(
        (),
        help="Learning rates of blocks or name patterns; the last one that fits counts.",
        group="optimizer",
        wanted=_RATES,
    )
    block_lr: BlockRates = setting(
        (),
        help="Learning rates of the U-Net's 29 blocks, from the input to the output.",
        group="optimizer",
        wanted=_BLOCK_RATES,
    )
    optimizer_type: OptimizerName = setting(
        "AdamW",
        choices=OPTIMIZERS,
        open_choices=True,
        help="Optimizer, by name or class path.",
        group="optimizer",
        common=True,
    )
    optimizer_args: Arguments = setting(
        (),
        help="Further arguments of the optimizer.",
        group="optimizer",
        wanted=_ARGUMENTS,
    )
    use_8bit_adam: bool = setting(
        False, help="Same as optimizer_type AdamW8bit.", group="optimizer", decides=False
    )
    use_lion_optimizer: bool = setting(
        False, help="Same as optimizer_type Lion.", group="optimizer", decides=False
    )
    max_grad_norm: float = setting(
        1.0, ge=0, help="Largest norm of the gradient; 0 sets no limit.", group="optimizer"
    )
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "piecewise_constant",
        "adafactor",
    ] = setting(
        "constant", help="How the learning rate changes.", group="learning rate", common=True
    )
    lr_scheduler_type: str | None = setting(
        None,
        help="Class path of another scheduler, instead of lr_scheduler.",
        group="learning rate",
    )
    lr_scheduler_args: Arguments = setting(
        (), help="Further arguments of the scheduler.", group="learning rate", wanted=_ARGUMENTS
    )
    lr_warmup_steps: StepsOrShare = setting(
        0,
        help="Length of the rise at the start.",
        group="learning rate",
        unit="steps or share",
        common=True,
        wanted=_STEPS_OR_SHARE,
    )
    lr_decay_steps: StepsOrShare = setting(
        0,
        help="Length of the fall at the end, for warmup_stable_decay.",
        group="learning rate",
        unit="steps or share",
        wanted=_STEPS_OR_SHARE,
    )
    lr_scheduler_num_cycles: int = setting(
        1, ge=1, help="Cycles of cosine_with_restarts.", group="learning rate"
    )
    lr_scheduler_power: float = setting(
        1.0, gt=0, help="Exponent of polynomial.", group="learning rate"
    )
    lr_scheduler_timescale: int | None = setting(
        None, ge=1, help="Time scale of inverse_sqrt.", group="learning rate", unit="steps"
    )
    lr_scheduler_min_lr_ratio: float | None = setting(
        None,
        ge=0,
        le=1,
        help="Smallest learning rate, as a share of the largest.",
        group="learning rate",
    )

    ema: bool = setting(
        False, help="Keep a moving average of the weights and save it.", group="moving average"
    )
    ema_decay: float = setting(
        0.9999, ge=0, lt=1, help="How slowly the average moves.", group="moving average"
    )
    ema_device: Literal["cpu", "same"] = setting(
        "cpu",
        help="Where the average is kept: in main memory, or with the model.",
        group="moving average",
        decides=False,
    )
