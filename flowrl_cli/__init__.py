"""The `flowrl` command: what a person types."""

from flowrl_core.installation import anchor

anchor()
