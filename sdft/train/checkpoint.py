"""Which checkpoints a run writes, under which names, and which of them it keeps.

The names and the keep-last rules are those of sd-scripts, so that scripts find what they expect.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRules:
    """When to save besides the end of the run; none switches a rule off."""

    every_n_steps: int | None = None
    every_n_epochs: int | None = None
    last_n_steps: int | None = None
    """Remove step saves that are older than this many steps."""
    last_n_epochs: int | None = None
    """Keep the newest n epoch saves."""

    def after_step(self, step: int, total_steps: int) -> bool:
        """Tell whether to save after this update; never at the last, which is saved anyway."""
        return self._due(self.every_n_steps, step, total_steps)

    def after_epoch(self, epoch: int, num_epochs: int) -> bool:
        """Tell whether to save after this epoch; never at the last."""
        return self._due(self.every_n_epochs, epoch, num_epochs)

    @staticmethod
    def _due(every: int | None, number: int, last: int) -> bool:
        return every is not None and number % every == 0 and number < last

    def step_to_remove(self, step: int) -> int | None:
        """Return the step whose save goes when `step` has been saved.

        Source: sd-scripts removes the multiple of `every` at or below step - n - 1.
        """
        if not self.every_n_steps or self.last_n_steps is None:
            return None
        candidate = step - self.last_n_steps - 1
        candidate -= candidate % self.every_n_steps
        return candidate if candidate > 0 else None

    def epoch_to_remove(self, epoch: int) -> int | None:
        """Return the epoch whose save goes when `epoch` has been saved."""
        if not self.every_n_epochs or self.last_n_epochs is None:
            return None
        candidate = epoch - self.every_n_epochs * self.last_n_epochs
        return candidate if candidate > 0 else None


def step_stem(output_name: str, step: int) -> str:
    return f"{output_name}-step{step:08d}"


def epoch_stem(output_name: str, epoch: int) -> str:
    return f"{output_name}-{epoch:06d}"


def file_name(stem: str, form: str) -> str:
    """Return the file's name, or the folder's for a diffusers form."""
    extensions = {"safetensors": ".safetensors", "ckpt": ".ckpt", "pt": ".pt"}
    return stem + extensions.get(form, "")
