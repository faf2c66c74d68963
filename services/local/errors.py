"""What stops `headwater` with one clear sentence instead of a stack trace."""


class LocalError(Exception):
    """A sentence for the person at the terminal: what happened, to what, and the way out."""
