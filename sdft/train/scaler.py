"""Loss scaling for weights and gradients that are both fp16.

torch's GradScaler refuses fp16 gradients. This one divides them where they lie, and clips in the
same pass, so that no gradient is rounded twice. Scale, growth and backoff are torch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

START_SCALE = 65536.0
GROWTH_FACTOR = 2.0
BACKOFF_FACTOR = 0.5
GROWTH_INTERVAL = 2000
"""Source: the defaults of torch.amp.GradScaler."""


@dataclass(kw_only=True)
class LossScaler:
    """Multiplies the loss, so that small gradients do not vanish in fp16."""

    scale: float = START_SCALE
    growth_interval: int = GROWTH_INTERVAL
    num_good_updates: int = 0
    """Since the scale changed."""

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self.scale

    @torch.no_grad()
    def unscale_and_clip(
        self, parameters: Sequence[Parameter], max_grad_norm: float
    ) -> tuple[Tensor, bool]:
        """Divide the gradients by the scale and bound their norm (0 does not).

        Returns the norm before clipping, and whether all gradients are finite; where they are not
        the update has to be left out. Waits for the device.
        """
        gradients = [one.grad for one in parameters if one.grad is not None]
        norms = [torch.linalg.vector_norm(one, dtype=torch.float32) for one in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms)) / self.scale
        finite = bool(torch.isfinite(norm))
        if finite:
            shrink = 1.0 / self.scale
            if max_grad_norm > 0:
                # The small number is that of torch.nn.utils.clip_grad_norm_.
                shrink *= min(1.0, max_grad_norm / (float(norm) + 1e-6))
            for gradient in gradients:
                gradient.mul_(shrink)
        return norm, finite

    def update(self, *, finite: bool) -> None:
        """Shrink the scale after gradients that were not finite; let it grow after many that were.

        Source: torch.amp.GradScaler.
        """
        if not finite:
            self.scale *= BACKOFF_FACTOR
            self.num_good_updates = 0
            return
        self.num_good_updates += 1
        if self.num_good_updates == self.growth_interval:
            self.scale *= GROWTH_FACTOR
            self.num_good_updates = 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "num_good_updates": self.num_good_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scale = float(state["scale"])
        self.num_good_updates = int(state["num_good_updates"])
