"""The help texts that tasks share."""

ENV = {"env": "environment: dev, test, prod or a declared one (default: the active one)"}
JSON = {"json": "print one JSON object and nothing else"}
CONFIRM = {"confirm": "the database's name: needed to destroy what a protected environment holds"}
