"""The diagnosis: link by link from the settings to the triggers, up to the first that is broken."""
