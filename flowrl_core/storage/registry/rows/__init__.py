"""Reads and writes shared by several parts of the registry: functions that work inside a given transaction."""
