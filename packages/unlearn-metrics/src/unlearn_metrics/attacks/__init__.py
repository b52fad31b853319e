"""Attacks: prompts that bring a forgotten concept back, and the baselines that they have to beat."""
