"""The error that is shown to the user without a traceback."""


class TamingError(Exception):
    """A problem that the user can fix; the message is two sentences: what is wrong, what to do."""
