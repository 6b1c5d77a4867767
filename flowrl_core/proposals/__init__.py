"""Skills proposed by a language model, and the gates that examine them. No JAX."""
