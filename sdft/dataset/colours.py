"""Changes an image's colours a little, as `color_aug` asks.

In: uint8 RGB and a random stream. Out: uint8 RGB. Shapes: H W pixels, C channels.
"""

from __future__ import annotations

import random

import numpy as np

CHANGED_SHARE = 0.33
"""So many uses are changed, half of them in hue, half in gamma. Source: sd-scripts."""

HUE_DEGREES = 16.0
"""Hue turns by at most this. Source: sd-scripts' 8 on OpenCV's scale of 180 for the circle."""

GAMMA = (0.95, 1.05)
"""Applied to values of 0 .. 255, not 0 .. 1, so it also changes brightness. Source: sd-scripts."""


def change_colours(rgb_HWC: np.ndarray, stream: random.Random) -> np.ndarray:
    """Return the image, most often as it is."""
    if stream.random() > CHANGED_SHARE:
        return rgb_HWC
    if stream.random() > 0.5:
        return turn_hue(rgb_HWC, stream.uniform(-HUE_DEGREES, HUE_DEGREES))
    return apply_gamma(rgb_HWC, stream.uniform(*GAMMA))


def apply_gamma(rgb_HWC: np.ndarray, gamma: float) -> np.ndarray:
    """Return every value raised to `gamma`, cut at 255, its fraction dropped."""
    levels = np.minimum(np.arange(256.0) ** gamma, 255.0).astype(np.uint8)
    changed: np.ndarray = levels[rgb_HWC]
    return changed


def turn_hue(rgb_HWC: np.ndarray, degrees: float) -> np.ndarray:
    """Return the image with every hue turned; saturation and value (of HSV) stay.

    Exact but for the last rounding, while OpenCV's 8 bits know every second degree only.
    """
    values_HWC = rgb_HWC.astype(np.float32)
    value_HW = values_HWC.max(axis=2)
    chroma_HW = value_HW - values_HWC.min(axis=2)
    safe_HW = np.where(chroma_HW > 0, chroma_HW, np.float32(1))
    red_HW, green_HW, blue_HW = np.moveaxis(values_HWC, 2, 0)
    # Sixths of the circle, from red.
    hue_HW = np.where(
        value_HW == red_HW,
        (green_HW - blue_HW) / safe_HW,
        np.where(
            value_HW == green_HW,
            (blue_HW - red_HW) / safe_HW + 2,
            (red_HW - green_HW) / safe_HW + 4,
        ),
    )
    hue_HW = hue_HW + np.float32(degrees / 60)
    turned_HWC = np.empty_like(values_HWC)
    for channel, offset in enumerate((5, 3, 1)):
        place_HW = (hue_HW + offset) % 6
        share_HW = np.clip(np.minimum(place_HW, 4 - place_HW), 0, 1)
        turned_HWC[:, :, channel] = value_HW - chroma_HW * share_HW
    return np.rint(turned_HWC).astype(np.uint8)
