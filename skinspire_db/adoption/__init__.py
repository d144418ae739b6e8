"""Taking over a database that was there before the tools: the report on it, its baseline, the adoption."""
