"""Node types: every one is queryable by its attributes, uses constant file names, and is identified by its content."""

from .ace import AcePotentialData
from .cluster import ClusterData
from .structures import StructureSetData, get_structures

__all__ = ('AcePotentialData', 'ClusterData', 'StructureSetData', 'get_structures')
