"""Environments: vocabularies, adapters, the plan automaton, world pools. Importing the package imports no JAX."""
