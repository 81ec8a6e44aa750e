"""The parts of `sdft plan`: questions about memory, disk and time from settings. Needs no torch."""
