"""The Prefect side of a campaign: submission, events, device slots, bootstrap."""
