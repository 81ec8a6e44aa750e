"""What other programs' settings are called here, one program a file."""
