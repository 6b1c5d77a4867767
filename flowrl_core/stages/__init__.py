"""Stages: what one task body calls. They join learning and storage."""
