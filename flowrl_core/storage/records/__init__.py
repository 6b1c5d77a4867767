"""What the registry answers: frozen records, by noun. Times are seconds since the epoch; nothing is ordered by them."""
