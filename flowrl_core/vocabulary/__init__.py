"""What environments let skills speak of: fluents, kinds and rules; the catalogue of environments. No JAX."""
