"""What a project brings beside its models: reference data and test data; the core's is the default."""
