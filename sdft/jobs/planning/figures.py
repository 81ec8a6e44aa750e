"""The records that `sdft plan` answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sdft.config.write import toml_value
from sdft.errors import Problem
from sdft.jobs.planning.disk import DiskPlan
from sdft.jobs.planning.fitting import Change
from sdft.jobs.planning.many import ManyGpus
from sdft.planning.cards import Card


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketMemory:
    """The memory of batches of one bucket."""

    width_px: int
    height_px: int
    batch_size: int
    peak_bytes: int
    parts: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        return {
            "resolution": [self.width_px, self.height_px],
            "batch_size": self.batch_size,
            "peak_bytes": self.peak_bytes,
            "parts": dict(self.parts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """What a run comes to, before it starts."""

    model: str
    images: int
    """Trained on."""
    held_out: int
    rejected: int
    steps: int
    epochs: int
    steps_per_epoch: int
    effective_batch: tuple[int, ...]
    rates: tuple[tuple[int, float], ...]
    """(step, learning rate) along the run."""
    disk: DiskPlan
    buckets: tuple[BucketMemory, ...]
    """The largest first; none where memory cannot be foreseen."""
    card: Card | None
    """None on a CPU."""
    fits: bool | None
    """None where there is no card, or memory cannot be foreseen."""
    changes: tuple[Change, ...]
    """What to change to fit, or to come as near as can be; the cheapest first."""
    changed_peak_bytes: int | None
    """With the changes."""
    sampling_bytes: int
    """Held while a sample is drawn; 0 without samples, or where memory cannot be foreseen."""
    duration_s: float | None
    """Of all steps, roughly; None for a card that is not known."""
    why_no_memory: str = ""
    many: ManyGpus | None = None
    """None where it was not asked for, or memory cannot be foreseen."""
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        worst = self.buckets[0] if self.buckets else None
        return {
            "model": self.model,
            "images": self.images,
            "held_out": self.held_out,
            "rejected": self.rejected,
            "steps": self.steps,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "effective_batch": list(self.effective_batch),
            "learning_rate": [list(pair) for pair in self.rates],
            "duration_s": self.duration_s,
            "disk": self.disk.as_json(),
            "memory": None if worst is None else worst.as_json(),
            "buckets": [one.as_json() for one in self.buckets],
            "sampling_bytes": self.sampling_bytes,
            "why_no_memory": self.why_no_memory,
            "card": None if self.card is None else _card(self.card),
            "fits": self.fits,
            "changes": [_change(one) for one in self.changes],
            "changed_peak_bytes": self.changed_peak_bytes,
            "scaling": None if self.many is None else self.many.as_json(),
            "problems": [asdict(one) for one in self.problems],
        }


def _card(card: Card) -> dict[str, Any]:
    return asdict(card) | {"usable_bytes": card.usable_bytes}


def _change(change: Change) -> dict[str, Any]:
    return {
        "values": dict(change.values),
        "toml": {name: toml_value(value) for name, value in change.values.items()},
        "cost": change.cost,
        "slower": change.slower,
    }
