"""Concept unlearning for Stable Diffusion: a model that holds its parts, and one file per technique."""
