"""Where the tiny model lies that comes with the package."""

from __future__ import annotations

from pathlib import Path

TINY_MODEL = Path(__file__).with_name("tiny.safetensors")
"""One file in the layout of Stable Diffusion 1.x, fp16; CARD.md beside it says what it can do."""
