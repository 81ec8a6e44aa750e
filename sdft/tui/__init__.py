"""The interface in a terminal."""
