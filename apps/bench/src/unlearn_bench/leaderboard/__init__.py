"""Tables of many runs, and the difference between two: they read records and nothing else."""
