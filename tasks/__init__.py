"""Prefect tasks: retries, artifacts and logs around one call into the core each."""
