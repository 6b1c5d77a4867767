"""Flow runs: submit, watch, end and find them."""
