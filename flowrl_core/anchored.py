"""Import this to make `flows` and `tasks` FlowRL's own: for files that Prefect loads in a process of its own."""

from flowrl_core.installation import anchor

anchor()
