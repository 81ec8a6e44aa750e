"""Fine-tunes Stable Diffusion 1.x and 2.x on a person's own pictures."""

__version__ = "0.1.0"
