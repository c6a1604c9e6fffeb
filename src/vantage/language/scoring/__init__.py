"""Log-probabilities of completions and their gradients, by sharing prompts or by enumeration."""
