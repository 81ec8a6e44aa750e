"""Checks of settings that save memory or time: what excludes what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sdft.config.places import Origins, place
from sdft.config.training import TrainingSettings
from sdft.errors import Problem

_LOOK_AT_ALL_WEIGHTS = ("dadapt", "prodigy", "radamschedulefree", "adamwschedulefree", "sgdsch")
"""Beginnings of the names of optimizers whose update of one weight depends on the others."""

_PART_BY_PART = "use AdamW, AdamW8bit, Lion, Lion8bit or Adafactor"

EFFECTS_OF_MACHINE: dict[str, tuple[str, Callable[[TrainingSettings], object]]] = {
    "cpu_offload_checkpointing": (
        "gradient_checkpointing",
        lambda t: t.gradient_checkpointing or t.checkpoint_blocks,
    ),
    "dynamo_backend": ("torch_compile", lambda t: t.torch_compile),
    "compile_scope": ("torch_compile", lambda t: t.torch_compile),
    "compile_mode": ("torch_compile", lambda t: t.torch_compile),
    "fsdp_reshard_after_forward": ("fsdp", lambda t: t.fsdp),
    "ddp_gradient_as_bucket_view": ("DDP, whose place fsdp takes", lambda t: not t.fsdp),
    "ddp_static_graph": ("DDP, whose place fsdp takes", lambda t: not t.fsdp),
}
"""Setting to what it needs to have an effect: in words, and as a test."""

_SPREAD_OPTIMIZERS = frozenset(
    {"adamw", "sgdnesterov"}
    | {f"torch.optim.{name}" for name in ("adam", "adamw", "adagrad", "nadam", "rmsprop", "sgd")}
)
"""In small letters: those whose update of a value looks at no other value."""


def problems_of_memory(t: TrainingSettings, origins: Origins) -> Iterator[Problem]:
    """Yield what cannot work together."""
    asked = [n for n in ("fused_backward_pass", "optimizer_states_on_cpu") if getattr(t, n)]
    if asked and t.optimizer_type.lower().startswith(_LOOK_AT_ALL_WEIGHTS):
        what = f"{t.optimizer_type} looks at all weights at once; {asked[0]} changes them in parts"
        yield Problem(what, place(origins, asked[0], "optimizer_type"), _PART_BY_PART)
    if t.optimizer_states_on_cpu and t.optimizer_type.lower().startswith("paged"):
        yield Problem(
            f"{t.optimizer_type} moves its state by itself, and so does optimizer_states_on_cpu",
            place(origins, "optimizer_states_on_cpu", "optimizer_type"),
            f"use {t.optimizer_type[len('Paged') :]}, or remove optimizer_states_on_cpu",
        )
    if not t.fused_backward_pass:
        return

    def excluded(what: str, *names: str, fix: str) -> Problem:
        return Problem(
            f"fused_backward_pass {what}", place(origins, "fused_backward_pass", *names), fix
        )

    if t.gradient_accumulation_steps > 1:
        yield excluded(
            "changes the weights in each backward pass, so gradients cannot be added up over"
            f" {t.gradient_accumulation_steps} batches",
            "gradient_accumulation_steps",
            fix="remove gradient_accumulation_steps, or use a larger batch_size",
        )
    if t.num_processes > 1:
        yield excluded(
            "changes the weights before the processes have exchanged their gradients",
            "num_processes",
            fix="remove fused_backward_pass, or train with one process",
        )
    if t.mixed_precision == "fp16":
        yield excluded(
            "cannot look at all gradients before it uses them, as the loss scale of fp16 needs",
            "mixed_precision",
            fix='set mixed_precision = "bf16"',
        )
    if t.on_bad_step == "skip":
        yield excluded(
            "has changed the weights before a bad step is seen, so none can be left out",
            "on_bad_step",
            fix='set on_bad_step = "stop"',
        )


def problems_of_fsdp(t: TrainingSettings, origins: Origins) -> Iterator[Problem]:
    """Yield what cannot work with weights that are spread over several processes."""
    if not t.fsdp:
        return

    def excluded(what: str, name: str, fix: str = "") -> Problem:
        return Problem(
            f"fsdp {what}", place(origins, "fsdp", name), fix or f"remove {name}, or fsdp"
        )

    reasons = {
        "fused_backward_pass": "exchanges gradients in the backward pass, and"
        " fused_backward_pass would change weights before that",
        "optimizer_states_on_cpu": "spreads the optimizer's state, and optimizer_states_on_cpu"
        " keeps all of it in main memory",
        "cpu_offload_checkpointing": "moves a block's weights in and out by itself, and"
        " cpu_offload_checkpointing does so with what it begins with",
        "torch_compile": "puts a block's weights in place between compiled parts, which"
        " torch_compile here does not know of",
        "hypernetwork": "spreads the U-Net that is trained; a hypernetwork is small, and every"
        " process can hold it",
        "channels_last": "takes tensors in torch's usual order only",
        "full_fp16": "keeps its part of the weights in float32",
        "full_bf16": "keeps its part of the weights in float32",
    }
    for name, reason in reasons.items():
        if getattr(t, name):
            yield excluded(reason, name)
    if t.mixed_precision == "fp16":
        yield excluded(
            "would need a loss scale that all processes share, which is not made here",
            "mixed_precision",
            'set mixed_precision = "bf16"',
        )
    if t.optimizer_type.lower() not in _SPREAD_OPTIMIZERS:
        yield excluded(
            f"gives each process some rows of every tensor, and {t.optimizer_type} may look at"
            " others, or round them in blocks",
            "optimizer_type",
            "use AdamW or SGDNesterov",
        )
