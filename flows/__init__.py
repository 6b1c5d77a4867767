"""Prefect flows: one readable page each."""
