"""What answers questions about images: entry points of `unlearn.vqa`."""
