"""The embedded Prefect: its server, its workers and what they need of this machine."""
