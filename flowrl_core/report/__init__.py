"""Reports: records in, figures out."""
