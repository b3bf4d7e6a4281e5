"""lpt-service: a daemon that shares a parallel port over a network."""

__version__ = "0.1.0"
