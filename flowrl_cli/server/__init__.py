"""The embedded Prefect: its server, its workers and what they need from this machine."""
