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
    num_processes: int = setting(
        1,
        ge=1,
        help="Train with so many processes on this machine, one a GPU; started by this command.",
        group="machine",
        common=True,
        decides=False,
    )
    max_restarts: int = setting(
        0,
        ge=0,
        help="With num_processes: go on so often from the last state when a process dies.",
        group="machine",
        decides=False,
    )
    main_process_port: int | None = setting(
        None,
        ge=1,
        le=65535,
        help="With num_processes: the port by which they meet; a free one if not set.",
        group="machine",
        decides=False,
    )
    fsdp: bool = setting(
        False,
        help="Several processes: spread weights, gradients and optimizer state over them (FSDP2).",
        group="machine",
        decides=False,
    )
    fsdp_reshard_after_forward: bool = setting(
        True,
        help="With fsdp: let a block's whole weights go after its forward pass; off takes memory.",
        group="machine",
        decides=False,
    )
    ddp_timeout: float | None = setting(
        None,
        gt=0,
        help="How long several processes wait for each other's gradients; 30 if not set.",
        group="machine",
        unit="minutes",
        decides=False,
    )
    ddp_gradient_as_bucket_view: bool = setting(
        False,
        help="Several processes: exchange gradients in place, which saves memory.",
        group="machine",
        decides=False,
    )
    ddp_static_graph: bool = setting(
        False,
        help="Several processes: say that every step runs through the same layers.",
        group="machine",
        decides=False,
    )
