"""The audit: how good a policy gradient is, with intervals, and what to do about it."""
