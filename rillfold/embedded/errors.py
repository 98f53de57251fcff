"""What can go wrong with the embedded stack. Each message ends with what to do."""

from schemas.errors import Stop


class StackError(Stop):
    """A server could not be started, or ended by itself."""


class JarError(Stop):
    """A Java library could not be fetched, or is not the one that the lock names."""
