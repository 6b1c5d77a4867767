"""User input: options, files, variables, and their errors."""
