"""Prefect's server and workers: settings, pools, deployments."""
