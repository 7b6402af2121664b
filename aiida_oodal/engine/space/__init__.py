"""Periodic neighbour search and geometry."""
