"""The DFT queue: structures that wait for a label, and what became of them."""

from aiida_oodal.engine.label.level import LevelOfTheory

from .entry import EXTRA, Entry, QueueStatus
from .store import (
    OtherLevelError,
    assign,
    claim,
    complete,
    count_entries,
    enqueue,
    fail,
    find_entries,
    get_entries,
    prioritise,
    reject,
    release,
    release_expired,
    retry,
)

__all__ = (
    'EXTRA',
    'Entry',
    'LevelOfTheory',
    'OtherLevelError',
    'QueueStatus',
    'assign',
    'claim',
    'complete',
    'count_entries',
    'enqueue',
    'fail',
    'find_entries',
    'get_entries',
    'prioritise',
    'reject',
    'release',
    'release_expired',
    'retry',
)
