"""Importing this makes `flows` and `tasks` FlowRL's: for files that Prefect loads in a process that is not FlowRL's."""

from flowrl_core.installation import anchor

anchor()
