"""Atoms and their neighbours in the form that pyace takes.

pyace's own neighbour search costs O(N^2), refuses left-handed cells and knows only fully periodic cells or none. Here
the neighbours come from :mod:`aiida_oodal.engine.space`, as they do in carving, so that any cell will do and a few
atoms of a huge snapshot cost next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aiida_oodal.engine.space.surroundings import Surroundings


def to_pyace(surroundings: Surroundings, *, whole: bool) -> Any:
    """Make pyace's own structure.

    :param whole: the atoms are all atoms of the structure in their order: forces on neighbours belong to them.
        Otherwise nobody reads the forces, and they may go anywhere.
    """
    from pyace import ACEAtomicEnvironment

    n_atoms = len(surroundings.counts)
    ends = n_atoms + np.cumsum(surroundings.counts)
    environment = ACEAtomicEnvironment()
    # The positions first: each setter frees the old values by the number of atoms that it finds.
    environment.x = surroundings.positions.tolist()
    environment.species_type = surroundings.species.tolist()
    environment.neighbour_list = [
        list(range(end - count, end)) for count, end in zip(surroundings.counts.tolist(), ends.tolist(), strict=True)
    ]
    own = list(range(n_atoms))
    origins = surroundings.origins
    environment.origins = origins.tolist() if whole else own + [0] * (len(origins) - n_atoms)
    return environment
