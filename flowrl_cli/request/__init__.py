"""What a person asks for: options, files, variables, and their errors."""
