"""Alembic's entry: migrations run on the connection, and inside the transaction, that the registry hands over."""

from __future__ import annotations

from alembic import context

__all__: list[str] = []

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True)
context.run_migrations()
