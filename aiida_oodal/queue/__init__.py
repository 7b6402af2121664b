"""The DFT queue: clusters and what became of them."""

from .entries import QueueStatus, enqueue, find_entries, find_known, mark

__all__ = ('QueueStatus', 'enqueue', 'find_entries', 'find_known', 'mark')
