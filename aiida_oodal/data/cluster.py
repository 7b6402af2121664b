"""The cell cut around one atom: what goes to the DFT queue."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida.common.exceptions import ValidationError
from aiida.orm import StructureData
from aiida.orm.pydantic import OrmMetadataField
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.constraints import free_mask, hold
from aiida_oodal.engine.content import content_key

from .caching import StoredHash

#: ``info`` values of the engine's cluster that become attributes one can query.
_INFO = (
    'gamma_cluster',
    'gamma_parent',
    'faithful',
    'buffer_above_break',
    'score',
    'score_threshold',
    'second_opinion',
    'center_parent_index',
    'step',
    'radius',
    'buffer',
    'shape',
    'repair',
    'repair_dropped',
    'repair_moved',
)


class ClusterData(StructureData):
    """A small periodic cell with its ``force_mask``; atom 0 is the centre. A small snapshot may be taken whole.

    :param cluster: as :func:`aiida_oodal.engine.carve.extract_cluster` returns it: per-atom arrays ``force_mask``
        (1.0 core, 0.0 buffer) and ``parent_index``; its ``info`` says where it was cut.
    """

    _CLS_NODE_CACHING = StoredHash

    class AttributesModel(StructureData.AttributesModel):
        """What can be queried beyond the cell and its sites."""

        content_key: str = OrmMetadataField(description='Hash of elements, positions and cell: equal for equal cells')
        force_mask: list[float] = OrmMetadataField(description='1.0 for core atoms, 0.0 for buffer atoms')
        masses: list[float] | None = OrmMetadataField(None, description='Masses [u], where the snapshot has its own')
        move_mask: list[Any] | None = OrmMetadataField(
            None, description='False for atoms that are held fixed (or for x, y, z of each), where there are any'
        )
        n_core: int = OrmMetadataField(description='Number of core atoms')
        parent_index: list[int] = OrmMetadataField(description='Index of each atom in the snapshot it was cut from')
        center_parent_index: int = OrmMetadataField(description='Index of the centre atom in the snapshot')
        step: int | None = OrmMetadataField(None, description='MD step of the snapshot')
        gamma_parent: float | None = OrmMetadataField(
            None, description='Extrapolation grade of the centre in the snapshot, by the potential that graded MD'
        )
        gamma: list[float] | None = OrmMetadataField(
            None, description='Extrapolation grade of each atom in the snapshot, by the potential that graded MD'
        )
        gamma_cluster: float | None = OrmMetadataField(
            None, description='Extrapolation grade of the centre, computed again in this cell'
        )
        faithful: bool | None = OrmMetadataField(None, description='Whether the two grades agree')
        buffer_above_break: int | None = OrmMetadataField(None, description='Buffer atoms with gamma above gamma_break')
        score: float | None = OrmMetadataField(
            None,
            description='Aligned variance of the centre in this cell: how much an ensemble disagrees',
        )
        score_threshold: float | None = OrmMetadataField(
            None, description='Score that a chosen share of the known atoms of the same element stays below'
        )
        second_opinion: str | None = OrmMetadataField(
            None,
            description='Which grade finds the centre out of distribution: both, gamma only, score only or neither',
        )
        radius: float | None = OrmMetadataField(
            None, description='Radius of the core, angstrom; none of a whole snapshot, as buffer and repair'
        )
        buffer: float | None = OrmMetadataField(None, description='Thickness of the buffer, angstrom')
        shape: str = OrmMetadataField(
            description='sphere (vacuum in the corners), cube (bulk density), or whole: the snapshot in its own cell'
        )
        repair: str | None = OrmMetadataField(
            None, description='How overlaps across the boundary are mended: error, drop or relax'
        )
        repair_dropped: int = OrmMetadataField(0, description='Buffer atoms that were dropped')
        repair_moved: int = OrmMetadataField(0, description='Buffer atoms that were moved')

    def __init__(self, cluster: Atoms | None = None, **kwargs: Any) -> None:
        if cluster is None:
            super().__init__(**kwargs)
            return
        # Tags would turn the kinds into Al1, Al2, ...
        super().__init__(ase=Atoms(cluster.symbols, cluster.positions, cell=cluster.cell, pbc=cluster.pbc), **kwargs)
        mask = np.asarray(cluster.arrays['force_mask'], dtype=float)
        attributes = {key: _plain(cluster.info[key]) for key in _INFO if key in cluster.info}
        attributes |= {
            'content_key': content_key(cluster),
            'force_mask': mask.tolist(),
            'parent_index': np.asarray(cluster.arrays['parent_index']).tolist(),
            'n_core': int(np.count_nonzero(mask > 0.5)),
        }
        if 'gamma' in cluster.arrays:
            attributes['gamma'] = np.ravel(cluster.arrays['gamma']).tolist()
        if cluster.has('masses'):
            attributes['masses'] = cluster.get_masses().tolist()
        if (free := free_mask(cluster)) is not None:
            attributes['move_mask'] = free.tolist()
        self.base.attributes.set_many(attributes)

    def _validate(self) -> bool:
        super()._validate()
        mask = self.base.attributes.get('force_mask', None)
        if mask is None or len(mask) != len(self.sites):
            raise ValidationError(
                f'force_mask has {None if mask is None else len(mask)} entries for {len(self.sites)} atoms: make the '
                'node with ClusterData(cluster), cluster as extract_cluster returns it'
            )
        return True

    @property
    def force_mask(self) -> NDArray[np.float64]:
        """1.0 for core atoms, 0.0 for buffer atoms, shape ``(n_atoms,)``."""
        return np.array(self.base.attributes.get('force_mask'), dtype=np.float64)

    @property
    def is_whole(self) -> bool:
        """Whether it is a snapshot in its own cell, from which nothing was cut."""
        return bool(self.base.attributes.get('shape') == 'whole')

    @property
    def gamma(self) -> NDArray[np.float64] | None:
        """Extrapolation grade of each atom in the snapshot, shape ``(n_atoms,)``; None if it is not known."""
        gamma = self.base.attributes.get('gamma', None)
        return None if gamma is None else np.array(gamma, dtype=np.float64)

    def get_atoms(self) -> Atoms:
        """Return the cell with masks, masses and held atoms, ``parent_index`` as array and the rest in ``info``."""
        atoms: Atoms = self.get_ase()
        atoms.arrays.pop('masses', None)  # those of AiiDA's elements
        atoms.arrays['force_mask'] = self.force_mask
        atoms.arrays['parent_index'] = np.array(self.base.attributes.get('parent_index'), dtype=np.int64)
        stored = self.base.attributes.all
        if stored.get('masses') is not None:
            atoms.set_masses(stored['masses'])
        if stored.get('move_mask') is not None:
            hold(atoms, np.array(stored['move_mask'], dtype=bool))
        atoms.info.update({key: stored[key] for key in _INFO if stored.get(key) is not None})
        return atoms


def is_cut(structure: StructureData) -> bool:
    """Whether a structure was cut out of a larger one, so that its cell says nothing about k-points."""
    return isinstance(structure, ClusterData) and not structure.is_whole


def _plain(value: Any) -> Any:
    """Give numpy values as plain python values."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
