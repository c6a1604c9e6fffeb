"""The audit of a language model, and the choice of a group size."""
