"""The help texts that tasks share."""

ENV = {"env": "environment: dev, test, prod or a declared one (default: the active one)"}
JSON = {"json": "print one JSON object and nothing else"}
CONFIRM = {"confirm": "the database's name: needed where a protected environment could lose something"}
