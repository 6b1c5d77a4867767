"""The `flowrl` command: what a person types."""
