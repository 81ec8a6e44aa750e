"""Checks of settings that save memory or time: what excludes what."""

from __future__ import annotations

from collections.abc import Iterator

from sdft.config.places import Origins, place
from sdft.config.training import TrainingSettings
from sdft.errors import Problem

_LOOK_AT_ALL_WEIGHTS = ("dadapt", "prodigy", "radamschedulefree", "adamwschedulefree", "sgdsch")
"""Beginnings of the names of optimizers whose update of one weight depends on the others."""

_PART_BY_PART = "use AdamW, AdamW8bit, Lion, Lion8bit or Adafactor"


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
