"""What says which of fixed labels is seen: entry points of `unlearn.classifiers`."""
