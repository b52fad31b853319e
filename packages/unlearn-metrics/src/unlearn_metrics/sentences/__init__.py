"""What tells how near the meanings of texts are: entry points of `unlearn.sentences`."""
