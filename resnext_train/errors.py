"""The one exception that the command line shows as a sentence instead of a traceback."""


class InputError(ValueError):
    """Something a user can put right; the message says what is wrong, where, and what to do."""
