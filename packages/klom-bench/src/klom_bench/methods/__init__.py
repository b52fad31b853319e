"""Ways to make a classifier forget: one file each, registered by entry point under ``unlearn.methods``."""
