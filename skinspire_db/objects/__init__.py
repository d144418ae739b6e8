"""Triggers: the files of sql/triggers and their versions; what of them is in a database; installing and proving them."""
