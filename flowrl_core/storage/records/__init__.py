"""The registry's frozen records, one module per noun. Times are seconds since the epoch and never used for ordering."""
