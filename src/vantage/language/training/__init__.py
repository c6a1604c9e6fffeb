"""Training a language model: the loop, its settings, evaluation, supervised warm-up."""
