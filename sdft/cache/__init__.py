"""Work done once: latents and contexts on disk, addressed by what they were made from."""
