"""What says whether a concept is seen: entry points of `unlearn.detectors`."""
