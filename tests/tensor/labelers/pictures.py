"""Makes pictures for taggers.

In: a path, a mode, a size. Out: a file of noise. And of any file, what a tagger makes ready.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdft.dataset.pixels import decode_rgb
from sdft.labelers.records import Prepared


def picture(path, mode, size, seed=0, orientation=None):
    """Write a picture of noise: the same for the same seed and size."""
    draw = np.random.default_rng((seed, *size))
    width, height = size
    rgba = draw.integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(rgba)
    if mode == "PA":
        paletted = image.convert("RGB").convert("P")
        paletted.save(path, transparency=3)
        return
    image = image.convert(mode)
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation is not None else {}))


def prepared(tagger, path):
    return Prepared(key=path.name, pixels=tagger.prepare(decode_rgb(path)))
