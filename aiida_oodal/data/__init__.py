"""Node types: every one is queryable by its attributes, uses constant file names, and is identified by its content."""

from .ace import AcePotentialData
from .cluster import ClusterData, is_cut
from .latents import LatentsData, open_ensemble
from .mace import MaceModelData
from .ood import OodReferenceData, OodScoresData
from .potential import PotentialData
from .structures import StructureSetData, get_structures

__all__ = (
    'AcePotentialData',
    'ClusterData',
    'LatentsData',
    'MaceModelData',
    'OodReferenceData',
    'OodScoresData',
    'PotentialData',
    'StructureSetData',
    'get_structures',
    'is_cut',
    'open_ensemble',
)
