"""The engine: batches in order, one update after another, states and checkpoints."""
