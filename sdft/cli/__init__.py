"""The `sdft` command: reads command lines, calls a job, prints its result."""
