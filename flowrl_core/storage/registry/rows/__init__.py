"""What several parts of the registry read and write: functions that work inside the transaction they are given."""
