"""The codes of jobs: the engine, which travels with every job, and LAMMPS."""

from .engine_code import get_engine_code

__all__ = ('get_engine_code',)
