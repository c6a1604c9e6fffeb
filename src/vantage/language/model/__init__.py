"""A causal language model as a policy: its law, its head, its value head, its memory."""
