"""What fills a terminal, or lies over it: one screen a file."""
