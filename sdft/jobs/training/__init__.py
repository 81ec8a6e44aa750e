"""The parts of the training job: what a command means, data, networks, saving, their assembly."""
