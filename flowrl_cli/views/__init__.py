"""What commands show: tables, the live view, a campaign's current state."""
