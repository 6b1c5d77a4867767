"""The turns of a campaign: proposing, submitting and reconciling skills."""
