"""Skills: definitions, plans, the frontier and merging. No JAX here."""
