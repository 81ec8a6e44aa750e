"""Where a torch model runs."""

from __future__ import annotations

import torch

from sdft.errors import UserError


def torch_device(asked: str) -> tuple[str, str]:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:1`, and a note where it is another.

    Raises: UserError for a device that torch does not have here.
    """
    if asked == "auto":
        return ("cuda", "") if torch.cuda.is_available() else ("cpu", "")
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            what="this torch sees no CUDA device",
            where="--device",
            fix="use --device cpu; sdft doctor says what is missing",
        )
    if asked == "directml":
        return "cpu", "torch models do not run on DirectML, so it runs on the CPU"
    try:
        return str(torch.device(asked)), ""
    except RuntimeError as error:
        raise UserError(
            what=f'no device "{asked}"', where="--device", fix="one of auto, cpu, cuda"
        ) from error
