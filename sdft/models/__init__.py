"""Stable Diffusion as loaded things: families, files of models, the three networks."""
