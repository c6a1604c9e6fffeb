"""Completions: generation, engines, and the rollout that turns them into batches."""
