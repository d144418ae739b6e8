"""The application's engines, sessions and detached copies."""

CONNECTION_TYPES = ("auto", "flask", "standalone")  # get_db_session's first argument in the module that this replaces
