"""The command line: ``aiida-oodal``."""

from .main import main

__all__ = ('main',)
