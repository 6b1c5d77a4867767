"""Upkeep of a home as tasks."""
