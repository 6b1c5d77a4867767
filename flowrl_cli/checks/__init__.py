"""What `flowrl doctor` finds."""
