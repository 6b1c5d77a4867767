"""Storage: layout, atomic writes, checkpoints and the registry."""
