"""The registry's statements, one module per kind of row. Each function works inside the transaction it is given."""
