"""Prompts and rewards: rows, reward functions, verifiers, and tasks small enough for a CPU."""
