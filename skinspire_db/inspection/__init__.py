"""What a database holds, as data: an overview, one table, who is at work, and the journal."""
