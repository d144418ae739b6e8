"""Continuous backups: the WAL as it is written, base backups, and servers recovered from them."""
