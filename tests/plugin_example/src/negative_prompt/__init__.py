"""A technique for Unlearn Bench, in a package of its own."""
