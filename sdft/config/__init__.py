"""What a person sets: every setting declared once, read from TOML, JSON and flags, and checked."""
