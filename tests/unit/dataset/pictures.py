"""Small files that the dataset's tests read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sdft.dataset.index import build_index
from sdft.dataset.records import DatasetIndex, SubsetSpec
from sdft.events import Event


def picture(path: Path, size: tuple[int, int] = (64, 48), **save: object) -> Path:
    """Write a picture whose colours change from place to place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours(size).save(path, **save)
    return path


def colours(size: tuple[int, int]) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


def captioned(
    folder: Path, *names: str, caption: str = "words", extension: str = ".caption"
) -> None:
    for name in names:
        path = picture(folder / name)
        path.with_suffix(extension).write_text(caption, encoding="utf-8")


def monstrous_png(path: Path, side_px: int = 30_000) -> Path:
    """Write a PNG of 1 bit a pixel that is small on disk and huge when decoded."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = b"\0" * (1 + (side_px + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side_px)) + packer.flush()
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(content)
    return path


def index_of(
    *subsets: SubsetSpec, emit: Callable[[Event], None] = lambda event: None
) -> DatasetIndex:
    return build_index([subsets], emit=emit, max_workers=2)
