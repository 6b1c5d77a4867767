"""Programs: done and reward as proven expressions of a small typed language. No JAX here."""
