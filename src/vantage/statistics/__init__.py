"""How much of a gradient is signal, with 95 % intervals from inner products of unit gradients."""
