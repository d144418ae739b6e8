"""What a database is filled with: reference data everywhere, invented people in dev and test."""
