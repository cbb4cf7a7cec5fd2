"""The one error that is shown to a user without a traceback."""


class TamingError(Exception):
    """Something the user can fix: two sentences, what is wrong and what to do."""
