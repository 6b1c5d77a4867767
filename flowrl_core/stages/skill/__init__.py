"""The stages of one run of a skill, and what measures skills again."""
