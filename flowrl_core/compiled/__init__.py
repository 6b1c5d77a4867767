"""Compiled learners in files: exported functions, their cache, and what they depend on."""
