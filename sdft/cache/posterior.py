"""What is kept of the distribution that a VAE gives for one picture.

In: mean and log-variance. Out: moments, the mean, or one draw. No torch.
Shapes: C channels, h w latent cells.
"""

from __future__ import annotations

import numpy as np

from sdft.cache.keys import LatentKind
from sdft.cache.shard import StoredDtype
from sdft.streams import seed64

LOG_VARIANCE_RANGE = (-30.0, 20.0)
"""Source: the reference VAE's posterior keeps its log-variance in it."""

LARGEST = {"fp16": 65504.0, "bf16": 3.3895314e38, "fp32": 3.4028235e38}
"""The largest finite values. Source: IEEE 754 half and single precision, and bfloat16."""


def values_of(moments_Chw: np.ndarray, kind: LatentKind, key: str) -> np.ndarray:
    """Return what is stored of one picture; a sample's noise depends on `key` alone.

    Shapes: [2 * 4, h, w] in; the same out for moments, else [4, h, w].
    """
    mean_Chw, log_variance_Chw = np.split(moments_Chw, 2)
    if kind == "mean":
        return mean_Chw
    log_variance_Chw = np.clip(log_variance_Chw, *LOG_VARIANCE_RANGE)
    if kind == "moments":
        return np.concatenate([mean_Chw, log_variance_Chw])
    generator = np.random.Generator(np.random.Philox(seed64("posterior", key)))
    noise_Chw = generator.standard_normal(mean_Chw.shape, dtype=np.float32)
    drawn_Chw: np.ndarray = mean_Chw + np.exp(0.5 * log_variance_Chw) * noise_Chw
    return drawn_Chw


def fits(values: np.ndarray, dtype: StoredDtype) -> bool:
    """Tell whether all values are finite and stay so in `dtype`."""
    # A comparison with NaN is false.
    return bool((np.abs(values) <= LARGEST[dtype]).all())
