"""What a run will need, said before it starts. Formulas only; needs no torch."""
