"""A small Stable Diffusion that draws coloured shapes: its world, its sizes, its weights."""
