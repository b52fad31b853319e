"""Networks that map images to features, one file each."""
