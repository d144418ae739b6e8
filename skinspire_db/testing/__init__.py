"""A real, seeded, verified clinic database for an application's tests, as a pytest plugin over pytest-postgresql."""
