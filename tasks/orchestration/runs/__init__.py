"""Flow runs: submitted, watched, ended, found again."""
