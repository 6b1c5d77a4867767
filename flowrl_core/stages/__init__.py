"""Stages: the function that each task body calls. They connect learning and storage."""
