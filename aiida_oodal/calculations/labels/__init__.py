"""Small steps between structures and their labels, each a node."""

from .candidates import carve_candidates
from .executable import read_label_file, write_input
from .outside import get_outside_level, import_labels
from .sets import copy_structures, merge_labels, pack_labels, split_structures, take_labels, unmerge, unpack

__all__ = (
    'carve_candidates',
    'copy_structures',
    'get_outside_level',
    'import_labels',
    'merge_labels',
    'pack_labels',
    'read_label_file',
    'split_structures',
    'take_labels',
    'unmerge',
    'unpack',
    'write_input',
)
