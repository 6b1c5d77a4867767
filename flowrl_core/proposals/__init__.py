"""What a language model proposes, and the gates that examine it. No JAX."""
