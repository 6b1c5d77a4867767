"""`flowrl up` and `flowrl down`: the embedded Prefect of a home, for those who have configured no server."""

from __future__ import annotations

__all__ = ["down", "up"]


def up() -> None:
    """Start a local Prefect server and its workers, and leave them up; a configured one only gets the deployments."""
    from flowrl_cli import embedded
    from flowrl_core.storage.layout import Home

    home = Home.from_environment()
    server = embedded.up(home, keep=True, say=lambda text: print(f"{text} ...", flush=True))
    print(f"UI: {server.ui}")
    if server.is_embedded:
        print("Stop it by `flowrl down`")
    else:
        print("This server is configured, so its workers are yours to start: pools `control` and `gpu`")


def down() -> None:
    """Stop the server, workers and runs that were started for this home; runs save a checkpoint first."""
    from flowrl_cli import embedded
    from flowrl_core.storage.layout import Home

    home = Home.from_environment()
    print("stopped" if embedded.down(home) else f"nothing is running for {home.root}")
