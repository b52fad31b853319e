"""Where ensembles come from: one file each, registered by entry point under ``unlearn.datasets``."""
