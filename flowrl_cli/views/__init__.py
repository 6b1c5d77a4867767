"""What commands show: tables, the live view, a campaign as it stands."""
