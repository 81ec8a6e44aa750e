"""The memory of a run's buckets, for any settings. Needs no torch.

In: the model, what the run does in each step, its buckets. Out: MemoryPlans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdft.config.training import TrainingSettings
from sdft.jobs.planning.asking import PlannedModel, Shape, Use, memory_question, with_shape
from sdft.planning.memory import MemoryPlan, all_blocks, plan_memory, plan_sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """Answers how much memory settings would take."""

    model: PlannedModel
    use: Use
    shapes: tuple[Shape, ...]
    """Of all batches, each once."""

    def of(self, settings: TrainingSettings, shape: Shape) -> MemoryPlan | None:
        """Return the memory of batches of one bucket, None where the formulas do not know."""
        question = memory_question(settings, self.model, self.use, shape)
        return None if question is None else plan_memory(question)

    def all(self, settings: TrainingSettings) -> dict[Shape, MemoryPlan]:
        """Return the memory of every bucket, the largest batches first; none if not known."""
        first = memory_question(settings, self.model, self.use, self.shapes[0])
        if first is None:
            return {}
        return {
            shape: plan_memory(with_shape(first, shape))
            for shape in sorted(self.shapes, key=_pixels, reverse=True)
        }

    def worst(self, settings: TrainingSettings) -> MemoryPlan | None:
        """Return the memory of the largest batch; memory grows with its pixels alone."""
        return self.of(settings, max(self.shapes, key=_pixels))

    def sampling(self, settings: TrainingSettings, sides_px: Sequence[tuple[int, int]]) -> int:
        """Return the bytes held while the largest of some pictures is drawn; 0 if not known."""
        question = memory_question(settings, self.model, self.use, self.shapes[0])
        if question is None or not sides_px:
            return 0
        width, height = max(sides_px, key=lambda sides: sides[0] * sides[1])
        return plan_sampling(question, self.model.sizes.vae, width, height)

    def blocks_by_saving(self, settings: TrainingSettings) -> Sequence[str]:
        """Return the U-Net's blocks, those first whose activations are dear to keep and cheap to
        compute again."""
        shape = max(self.shapes, key=_pixels)
        question = memory_question(settings, self.model, self.use, shape)
        assert question is not None
        # Little but activations, so that none hides behind gradients and states.
        bare = replace(question, checkpoints=frozenset(), is_trained=_nothing)
        whole = plan_memory(bare)
        scores = {}
        for name in sorted(all_blocks(question.unet)):
            one = plan_memory(replace(bare, checkpoints=frozenset({name})))
            saved = whole.peak_bytes - one.peak_bytes
            scores[name] = saved / max(1, one.flops - whole.flops)
        return sorted(scores, key=lambda name: (-scores[name], name))

    def recomputed_share(self, settings: TrainingSettings, values: Mapping[str, Any]) -> float:
        """Return how much more is computed with these values, as a share of a step."""
        shape = max(self.shapes, key=_pixels)
        before = settings.model_copy(
            update={"gradient_checkpointing": False, "checkpoint_blocks": ()}
        )
        plans = [
            self.of(before, shape),
            self.of(before.model_copy(update=dict(values)), shape),
        ]
        assert plans[0] is not None
        assert plans[1] is not None
        return plans[1].flops / plans[0].flops - 1


def _pixels(shape: Shape) -> int:
    return shape.width_px * shape.height_px * shape.batch_size


def _nothing(network: str, name: str) -> bool:
    return False
