"""What to change so that a run fits its card, cheapest first.

In: settings, which of them a person set, the memory there is. Out: changes. What a person set is
never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdft.config.checks import problems_in
from sdft.config.load import Config
from sdft.config.training import TrainingSettings
from sdft.jobs.planning.asking import optimizer_needs
from sdft.jobs.planning.foresight import Foresight

BF16, FP16 = "bf16", "fp16"
CHOOSABLE = (
    "mixed_precision",
    "optimizer_type",
    "gradient_checkpointing",
    "checkpoint_blocks",
    "fused_backward_pass",
    "full_bf16",
    "optimizer_states_on_cpu",
    "cpu_offload_checkpointing",
)
"""The settings that a change may be of."""

LAST_FREE_RANK = 1
"""The first steps of the ladder, to this one, cost next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step towards less memory: some settings, and what it costs."""

    values: Mapping[str, Any]
    cost: str
    """A name in the catalogue of words, in its table `plan_cost`."""
    slower: float = 0.0
    """How much longer a step takes at the most, as a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was found."""

    changes: tuple[Change, ...]
    """In order of cost; none where nothing has to change."""
    config: Config
    """With the changes."""
    peak_bytes: int
    """Of the worst bucket, with the changes."""
    fits: bool

    @property
    def values(self) -> dict[str, Any]:
        return {name: value for one in self.changes for name, value in one.values.items()}


def fit(config: Config, foresight: Foresight, usable_bytes: int, *, has_bf16: bool) -> Fit | None:
    """Return the cheapest changes after which the worst bucket takes no more than `usable_bytes`.

    Where nothing is enough, all that can be done. None where the memory cannot be foreseen.
    """

    def peak_of(one: Config) -> int:
        worst = foresight.worst(one.training)
        assert worst is not None, "asked before"
        return worst.peak_bytes

    if foresight.worst(config.training) is None:
        return None
    steps = list(_ladder(foresight, has_bf16))
    done: dict[int, Change] = {}
    now, peak = config, peak_of(config)
    for rank, step in enumerate(steps):
        if peak <= usable_bytes:
            break
        now, peak, taken = _climb(now, peak, step(now.training), usable_bytes, peak_of)
        if taken is not None:
            done[rank] = taken
    if peak <= usable_bytes:

        def fits(changes: Mapping[int, Change]) -> bool:
            changed = _changed(config, changes)
            return changed is not None and peak_of(changed) <= usable_bytes

        done = _without_needless(done, fits)
        done = _with_lesser(done, steps, config, fits)
    final = _changed(config, done)
    assert final is not None, "each change was checked when it was taken"
    peak = peak_of(final)
    changes = tuple(done[rank] for rank in sorted(done))
    return Fit(changes=changes, config=final, peak_bytes=peak, fits=peak <= usable_bytes)


def _changed(config: Config, changes: Mapping[int, Change]) -> Config | None:
    """Return the config with changes, the cheapest first, or None where they do not go together."""
    for rank in sorted(changes):
        config = config.with_training(**changes[rank].values)
    wrong = problems_in(config.training, config.datasets, config.origins)
    return None if wrong else config


def _climb(
    config: Config,
    peak: int,
    choices: Sequence[Change],
    usable_bytes: int,
    peak_of: Callable[[Config], int],
) -> tuple[Config, int, Change | None]:
    """Return the config after the first choice that is enough, or else after the last one."""
    best: tuple[Config, int, Change | None] = (config, peak, None)
    for choice in choices:
        if not may_change(config, choice.values):
            continue
        changed = config.with_training(**choice.values)
        if problems_in(changed.training, changed.datasets, changed.origins):
            continue
        found = peak_of(changed)
        # Where none is enough the last is taken, which later ones can build on.
        if found < peak:
            best = (changed, found, choice)
        if found <= usable_bytes:
            break
    return best


def may_change(config: Config, values: Mapping[str, Any]) -> bool:
    """Tell whether no person set any of these otherwise."""
    return all(
        config.origins.get(name, "default") == "default" or getattr(config.training, name) == value
        for name, value in values.items()
    )


def _without_needless(
    done: Mapping[int, Change], fits: Callable[[Mapping[int, Change]], bool]
) -> dict[int, Change]:
    """Return the changes less those that dearer ones made needless."""
    kept = dict(done)
    for rank in sorted(done, reverse=True):
        fewer = {other: one for other, one in kept.items() if other != rank}
        # A dearer one is no reason to give up what costs next to nothing.
        if rank > LAST_FREE_RANK and fits(fewer):
            kept = fewer
    return kept


def _with_lesser(
    done: Mapping[int, Change],
    steps: Sequence[Step],
    config: Config,
    fits: Callable[[Mapping[int, Change]], bool],
) -> dict[int, Change]:
    """Return the changes with the least choice of each that is enough beside the others."""
    kept = dict(done)
    for rank in done:
        before = _changed(config, {other: one for other, one in kept.items() if other < rank})
        assert before is not None
        for choice in steps[rank](before.training):
            if may_change(config, choice.values) and fits({**kept, rank: choice}):
                kept[rank] = choice
                break
    return kept


Step = Callable[[TrainingSettings], Sequence[Change]]


def _ladder(foresight: Foresight, has_bf16: bool) -> Iterator[Step]:
    """Yield what can be done, cheapest first; each gives its choices for the settings so far."""
    half = BF16 if has_bf16 else FP16

    yield lambda settings: [Change(values={"mixed_precision": half}, cost="half")]
    yield lambda settings: _in_8_bits(settings, foresight)
    yield lambda settings: _computed_twice(settings, foresight)
    yield lambda settings: _fused(settings, foresight)
    if has_bf16:
        yield lambda settings: [
            Change(
                values={"mixed_precision": BF16, "full_bf16": True},
                cost="half_weights",
            )
        ]
    yield lambda settings: _states_elsewhere(settings, foresight)
    yield lambda settings: [
        Change(
            values={"gradient_checkpointing": True, "cpu_offload_checkpointing": True},
            cost="offload",
        )
    ]


def _in_8_bits(settings: TrainingSettings, foresight: Foresight) -> list[Change]:
    if settings.optimizer_type.lower() != "adamw" or not foresight.use.has_bitsandbytes:
        return []
    return [Change(values={"optimizer_type": "AdamW8bit"}, cost="eight_bits")]


def _computed_twice(settings: TrainingSettings, foresight: Foresight) -> list[Change]:
    """Return choices of blocks that are computed twice, those first that save most for it."""
    order = foresight.blocks_by_saving(settings)
    choices = []
    for count in range(1, len(order)):
        values = {"gradient_checkpointing": True, "checkpoint_blocks": tuple(order[:count])}
        share = foresight.recomputed_share(settings, values)
        choices.append(Change(values=values, cost="twice", slower=share))
    whole = {"gradient_checkpointing": True, "checkpoint_blocks": ()}
    share = foresight.recomputed_share(settings, whole)
    last = Change(values={"gradient_checkpointing": True}, cost="twice", slower=share)
    return [*choices, last]


def _fused(settings: TrainingSettings, foresight: Foresight) -> list[Change]:
    needs = optimizer_needs(settings, foresight.use)
    if needs is None or not needs.one_by_one or settings.gradient_accumulation_steps > 1:
        return []
    if foresight.use.num_processes > 1:
        # Each process would step before the gradients are exchanged.
        return []
    return [Change(values={"fused_backward_pass": True}, cost="fused")]


def _states_elsewhere(settings: TrainingSettings, foresight: Foresight) -> list[Change]:
    needs = optimizer_needs(settings, foresight.use)
    if needs is None or not needs.one_by_one:
        return []
    return [Change(values={"optimizer_states_on_cpu": True}, cost="states")]
