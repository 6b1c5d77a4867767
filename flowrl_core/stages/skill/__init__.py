"""The stages of one run of a skill, and the assessment of learned skills."""
