"""The vocabulary of environments (fluents, kinds and rules) and their catalogue. No JAX."""
