"""Upkeep of a home as Prefect tasks."""
