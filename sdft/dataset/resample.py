"""Makes a picture smaller or larger by weighted means of its pixels.

Exact area averaging, and OpenCV's bilinear, bicubic and nearest kernels, without OpenCV: what
sd-scripts computes with OpenCV comes out the same within one of 255 levels. Sums have a fixed
order and use no matrix library, so the bits do not depend on the processor or on threads.

Letters in shapes: H W source rows and columns, h w the wanted ones, C channels, K source pixels
that one wanted pixel is made of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Span = tuple[int, int]
"""First and one past the last of the wanted rows or columns that are computed."""

_ELEMENTS_AT_ONCE = 1 << 16
"""So many sums stay in the processor's cache."""


def by_area(
    pixels_HWC: np.ndarray, height: int, width: int, rows: Span, columns: Span
) -> np.ndarray:
    """Return the part of a height x width picture whose pixels are means over their own area.

    Neither side may grow.

    Shapes: uint8 [H, W, C] in; uint8 [rows, columns, C] out.
    Source: OpenCV's INTER_AREA for shrinking.
    """
    num_rows, num_columns, channels = pixels_HWC.shape
    means_hWC = _mean_rows(pixels_HWC.reshape(num_rows, -1), height, rows)
    turned_WhC = means_hWC.reshape(-1, num_columns, channels).transpose(1, 0, 2)
    flat_WN = np.ascontiguousarray(turned_WhC).reshape(num_columns, -1)
    means_wN = _mean_rows(flat_WN, width, columns)
    means_whC = means_wN.reshape(columns[1] - columns[0], -1, channels)
    return _to_uint8(means_whC.transpose(1, 0, 2))


def by_kernel(
    pixels_HWC: np.ndarray, height: int, width: int, rows: Span, columns: Span, kernel: str
) -> np.ndarray:
    """Return the part of a height x width picture made with a row of `KERNELS`.

    As in OpenCV nothing is smoothed before shrinking.

    Shapes: uint8 [H, W, C] in; uint8 [rows, columns, C] out.
    """
    taps = KERNELS[kernel]
    index_hK, weight_hK = taps(pixels_HWC.shape[0], height, rows)
    index_wK, weight_wK = taps(pixels_HWC.shape[1], width, columns)
    upright_hWC = np.zeros((len(index_hK), *pixels_HWC.shape[1:]), dtype=np.float32)
    for index_h, weight_h in zip(index_hK.T, weight_hK.T, strict=True):
        upright_hWC += pixels_HWC[index_h] * weight_h[:, None, None]
    resized_hwC = np.zeros((len(index_hK), len(index_wK), pixels_HWC.shape[2]), dtype=np.float32)
    for index_w, weight_w in zip(index_wK.T, weight_wK.T, strict=True):
        resized_hwC += upright_hWC[:, index_w] * weight_w[:, None]
    return _to_uint8(resized_hwC)


def _mean_rows(source_HN: np.ndarray, num_wanted: int, span: Span) -> np.ndarray:
    """Return for each wanted row the mean of the source rows that it covers, also in part.

    Shapes: uint8 or float32 [H, N] in; float32 [span, N] out.
    """
    num_rows, num_columns = source_HN.shape
    wanted_h = np.arange(*span)
    # In whole numbers, so that no rounding makes a sliver of a row.
    first_h, missing_h = np.divmod(wanted_h * num_rows, num_wanted)
    last_h, covered_h = np.divmod((wanted_h + 1) * num_rows, num_wanted)
    whole_h = first_h + (missing_h > 0)
    # Each wanted row covers this many source rows wholly, and perhaps one more.
    num_whole = int((last_h - whole_h).min())
    parts = (
        (first_h, np.where(missing_h > 0, 1 - missing_h / num_wanted, 0)),
        (whole_h + num_whole, last_h - whole_h - num_whole),
        (last_h, covered_h / num_wanted),
    )
    # Whole numbers are summed exactly: 257 rows of 255 fit in 16 bits.
    exact = np.uint16 if num_whole <= 257 else np.uint32
    sum_type = exact if source_HN.dtype == np.uint8 else np.float32
    means_hN = np.empty((len(wanted_h), num_columns), dtype=np.float32)
    rows_at_once = max(1, _ELEMENTS_AT_ONCE // num_columns)
    for start in range(0, len(wanted_h), rows_at_once):
        block = slice(start, start + rows_at_once)
        sum_bN = np.zeros((len(wanted_h[block]), num_columns), dtype=sum_type)
        for offset in range(num_whole):
            sum_bN += source_HN.take(whole_h[block] + offset, axis=0)
        total_bN = sum_bN.astype(np.float32, copy=False)
        for index_h, weight_h in parts:
            if weight_h[block].any():
                weight_b1 = weight_h[block, None].astype(np.float32)
                total_bN += source_HN.take(index_h[block], axis=0, mode="clip") * weight_b1
        means_hN[block] = total_bN
    means_hN *= np.float32(num_wanted / num_rows)
    return means_hN


Taps = Callable[[int, int, Span], tuple[np.ndarray, np.ndarray]]
"""(source length, wanted length, span) -> source index and weight, each [span, K]."""


def _centres(num_source: int, num_wanted: int, span: Span) -> np.ndarray:
    """Return where the middles of the wanted pixels lie among the middles of the source's."""
    return (np.arange(*span) + 0.5) * (num_source / num_wanted) - 0.5


def _nearest(num_source: int, num_wanted: int, span: Span) -> tuple[np.ndarray, np.ndarray]:
    # OpenCV's INTER_NEAREST counts from the pixels' corners, not from their middles.
    index = np.floor(np.arange(*span) * (num_source / num_wanted)).astype(np.int64)
    index_hK = index.clip(max=num_source - 1)[:, None]
    return index_hK, np.ones(index_hK.shape, dtype=np.float32)


def _linear(num_source: int, num_wanted: int, span: Span) -> tuple[np.ndarray, np.ndarray]:
    centres = _centres(num_source, num_wanted, span)
    below = np.floor(centres)
    part = centres - below
    return _clamped(below, num_source, [1 - part, part])


def _area_linear(num_source: int, num_wanted: int, span: Span) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's INTER_AREA where a side grows: each wanted pixel blends what it overlaps."""
    scale = num_source / num_wanted
    number = np.arange(*span)
    below = np.floor(number * scale)
    part = (number + 1) - (below + 1) / scale
    part = np.where(part <= 0, 0, part - np.floor(part))
    return _clamped(below, num_source, [1 - part, part])


def _cubic(num_source: int, num_wanted: int, span: Span) -> tuple[np.ndarray, np.ndarray]:
    centres = _centres(num_source, num_wanted, span)
    below = np.floor(centres)
    part = centres - below
    weights = [_keys(distance) for distance in (1 + part, part, 1 - part, 2 - part)]
    return _clamped(below - 1, num_source, weights)


def _keys(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with OpenCV's free parameter, -0.75.

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 4.
    """
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights: np.ndarray = np.where(distance <= 1, near, far)
    return weights


def _clamped(
    start: np.ndarray, num_source: int, weights: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Take len(weights) neighbours from `start` on; beyond the border the last pixel repeats."""
    index_hK = start[:, None].astype(np.int64) + np.arange(len(weights))
    weight_hK = np.stack(weights, axis=1).astype(np.float32)
    return index_hK.clip(0, num_source - 1), weight_hK


KERNELS: dict[str, Taps] = {
    "nearest": _nearest,
    "linear": _linear,
    "area": _area_linear,
    "cubic": _cubic,
}


def _to_uint8(values_hwC: np.ndarray) -> np.ndarray:
    rounded = np.rint(values_hwC)
    return np.ascontiguousarray(rounded.clip(0, 255).astype(np.uint8))
