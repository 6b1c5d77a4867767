"""Language models: the interface to them, their questions and their answers."""
