"""A test kit: stand-ins for a language model, and the conformance test of environments (`environments`)."""

from flowrl_core.testing.models import Booking, EphemeralJournal, ListBook, ScriptedModel

__all__ = ["Booking", "EphemeralJournal", "ListBook", "ScriptedModel"]
