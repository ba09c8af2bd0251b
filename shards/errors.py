"""The two errors that a user is meant to read.

Each is one line that names what is wrong, where, the rule it breaks and the remedy. The command line prints
it as `error: ...` and leaves with status 2, without a traceback.
"""


class UserError(Exception):
    """Something that the user can put right: an option, a path, a full disk."""


class DataError(UserError):
    """Data that is missing, damaged or of the wrong kind. Training never starts on it."""
