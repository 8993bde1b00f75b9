"""The one error that a person at the terminal is meant to read."""


class FusionError(Exception):
    """A failure with a one-line message that names the value and the way out.

    The doors (``python -m fusion.VERB``) print it without a traceback; ``-v`` shows the traceback.
    """
