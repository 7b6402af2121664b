"""The errors a user can mend."""


class OodalError(ValueError):
    """Bad input or bad content: the message names the file, the value, the limit and the way out."""
