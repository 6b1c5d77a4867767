"""One round of proposals, from the question to the record."""
