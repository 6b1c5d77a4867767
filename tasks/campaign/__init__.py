"""The turns of a campaign: what it asks for, submits and reconciles."""
