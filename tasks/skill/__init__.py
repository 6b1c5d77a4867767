"""The tasks of one skill's run."""
