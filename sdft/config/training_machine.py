"""Settings that trade memory for time, and use what the device can do."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from sdft.config.settings import setting
from sdft.config.training_objective import NamePatterns


class MachineSettings(
    BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
):
    """The part of the training settings that says how the device is used."""

    fused_backward_pass: bool = setting(
        False,
        help="Change weights in the backward pass; max_grad_norm then bounds each one's gradient.",
        group="memory",
    )
    optimizer_states_on_cpu: bool = setting(
        False,
        help="Keep the optimizer's state in main memory, copied to the GPU part by part.",
        group="memory",
    )
    checkpoint_blocks: NamePatterns = setting(
        (),
        help="Only these blocks compute activations twice, such as down_blocks.0; all if not set.",
        group="memory",
        decides=False,
    )
    cpu_offload_checkpointing: bool = setting(
        False,
        help="Keep what gradient_checkpointing holds in main memory.",
        group="memory",
        decides=False,
    )
    channels_last: bool | None = setting(
        None,
        help="Lay tensors out as convolutions of a GPU like it; done on a GPU if not set.",
        group="machine",
        decides=False,
    )
    tf32: bool | None = setting(
        None,
        help="Let an NVIDIA GPU round factors to 19 bits; done if not set, unless deterministic.",
        group="machine",
        decides=False,
    )
    torch_compile: bool = setting(
        False,
        help="Compile the U-Net: minutes at the start, then faster steps on a GPU.",
        group="machine",
        decides=False,
    )
    dynamo_backend: Literal["inductor", "eager", "aot_eager", "cudagraphs"] = setting(
        "inductor", help="What torch_compile compiles with.", group="machine", decides=False
    )
    compile_scope: Literal["unet", "blocks"] = setting(
        "unet",
        help="What torch_compile compiles; blocks take less time to compile.",
        group="machine",
        decides=False,
    )
    compile_mode: Literal["default", "max-autotune-no-cudagraphs"] = setting(
        "default",
        help="How long torch_compile looks for the fastest kernels.",
        group="machine",
        decides=False,
    )
