"""A kit for tests: what stands in for a language model, and what every environment must do (`environments`)."""

from flowrl_core.testing.models import Booking, EphemeralJournal, ListBook, ScriptedModel

__all__ = ["Booking", "EphemeralJournal", "ListBook", "ScriptedModel"]
