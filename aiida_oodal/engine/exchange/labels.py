"""Which energies and forces of a file are labels, and under which names they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import per_atom_properties

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS

__all__ = ('LABEL_FORMATS', 'LabelTaker', 'check_label_names')

#: Formats (names of ASE) whose energies and forces are what a user means as labels: those that are written to carry
#: them, and outputs of electronic structure codes. In all others they are those of whatever ran the MD.
LABEL_FORMATS = frozenset(
    (
        *('extxyz', 'traj', 'bundletrajectory', 'db', 'json', 'mysql', 'postgresql', 'nomad-json'),
        *('abinit-gsr', 'abinit-out', 'aims-output', 'acemolecule-out', 'castep-castep', 'castep-geom', 'castep-md'),
        *('dacapo-text', 'espresso-out', 'gamess-us-out', 'gamess-us-punch', 'gaussian-out', 'gpaw-out', 'gpw'),
        *('nwchem-out', 'onetep-out', 'orca-output', 'qbox', 'turbomole-gradient', 'vasp-out', 'vasp-xml'),
    )
)
#: What may be named, and the label it becomes.
_LABELS = {'energy': ENERGY, 'forces': FORCES, 'stress': STRESS, 'virial': STRESS}
#: Results that become labels, and those that only make sense beside labels of the same source.
_LABEL_RESULTS = ('energy', 'free_energy', 'forces', 'stress')
_RESULTS = (*_LABEL_RESULTS, 'energies', 'stresses')


def check_label_names(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Refuse names of labels that there are not.

    :raises OodalError: naming the wrong one, and those there are.
    """
    given = dict(labels or {})
    for label, key in given.items():
        if label not in _LABELS:
            raise OodalError(f'labels: {label!r} is none; there are {", ".join(_LABELS)}')
        if not isinstance(key, str) or not key:
            raise OodalError(f'labels: {label} = {key!r} must be the name that it has in the file')
    if {'stress', 'virial'} <= given.keys():
        raise OodalError('labels: give stress or virial, not both: each is the stress')
    return given


@dataclass
class _Tally:
    """How often something was met, and where first."""

    count: int = 0
    first: str = ''

    def meet(self, place: str) -> None:
        self.first = self.first or place
        self.count += 1


class LabelTaker:
    """Move the labels of structures to the names under which they are stored, and say what was taken for what.

    Named keys are labels wherever they stand: per structure, per atom, or on the calculator; then nothing else is.
    Without names, labels are ``REF_energy``, ``REF_forces`` and ``REF_stress`` as they stand, and, in a format that
    carries labels, what the reader put on a calculator: ``free_energy`` before ``energy``, as forces are its derivative
    (so does the labeller of this package), ``forces`` and ``stress``.

    :param labels: what each label is called in the file, e.g. ``{'energy': 'dft_energy', 'forces': 'dft_forces'}``.
    :param file_format: name of ASE; see :data:`LABEL_FORMATS`.
    :raises OodalError: for a label that there is not.
    """

    def __init__(self, labels: Mapping[str, str] | None, file_format: str) -> None:
        self._named = check_label_names(labels)
        self._format = file_format
        self._trusted = file_format in LABEL_FORMATS and not self._named
        self._total = 0
        self._keys: set[str] = set()
        self._found = {label: _Tally() for label in self._named}
        self._dropped: dict[str, _Tally] = {}
        self._free, self._free_differs, self._plain, self._beside = _Tally(), _Tally(), _Tally(), _Tally()
        self._six = _Tally()

    def take(self, atoms: Atoms, place: str) -> None:
        """Move the labels of one structure, which has no calculator then.

        :param place: what notes call it.
        """
        self._total += 1
        results: dict[str, Any] = dict(getattr(atoms.calc, 'results', {}))
        atoms.calc = None
        if self._named:
            self._keys |= {str(key) for key in (*atoms.info, *atoms.arrays, *results)} - {'numbers', 'positions'}
            for label, key in self._named.items():
                self._take_named(atoms, results, label, key, place)
        lost = _LABEL_RESULTS if self._trusted else _RESULTS
        if self._trusted:
            self._take_results(atoms, results, place)
        elif left := ', '.join(name for name in lost if name in results):
            self._dropped.setdefault(left, _Tally()).meet(place)
        for name, value in results.items():
            if name not in lost:
                (atoms.arrays if name in per_atom_properties else atoms.info).setdefault(name, value)

    def notes(self) -> list[str]:
        """Say what was taken for what, once all structures are there.

        :raises OodalError: if no structure has what was named.
        """
        notes = []
        for label, tally in self._found.items():
            key = self._named[label]
            if self._total and not tally.count:
                there = ', '.join(sorted(self._keys)) or 'nothing but geometry'
                raise OodalError(f'labels: no structure has {key!r} ({label}); there is {there}')
            if tally.count < self._total:
                notes.append(f'labels: {key!r} ({label}) is in {tally.count} of {self._total} structures only')
        if self._free_differs.count:
            sentence = (
                f'{ENERGY} is `free_energy`, not `energy`, because the forces are the derivative of the free energy'
            )
            notes.append(self._say(sentence, self._free_differs))
        if self._free.count and self._plain.count:
            sentence = f'{ENERGY} is `energy` for want of `free_energy`, which the others have: two zeros of energy'
            notes.append(self._say(sentence, self._plain))
        if self._beside.count:
            sentence = 'labels are those named REF_..., and energy, forces and stress beside them dropped'
            notes.append(self._say(sentence, self._beside))
        if self._six.count:
            notes.append(self._say('a stress of six numbers is taken for xx yy zz yz xz xy', self._six))
        notes += [self._say(self._about_dropped(names), tally) for names, tally in self._dropped.items()]
        return notes

    def _about_dropped(self, names: str) -> str:
        if self._named:
            return f'{names} were not named among the labels and are dropped'
        example = ', '.join(f'{name!r}: {name!r}' for name in names.split(', ') if name in _LABELS)
        return (
            f'{names} of a {self._format} file are those of the potential that ran it, and dropped; if they are '
            f'labels, name them: labels={{{example}}}'
        )

    def _take_named(self, atoms: Atoms, results: dict[str, Any], label: str, key: str, place: str) -> None:
        stores: tuple[dict[str, Any], ...] = (atoms.info, atoms.arrays, results)
        store = next((each for each in stores if each.get(key) is not None), None)
        if store is None:
            return
        value = store.pop(key)
        if label == 'virial':
            value = _stress_of(value, atoms)
        (atoms.arrays if label == 'forces' else atoms.info)[_LABELS[label]] = value
        self._found[label].meet(place)

    def _take_results(self, atoms: Atoms, results: dict[str, Any], place: str) -> None:
        """Take what stands on the calculator, if nothing stands under the names of labels."""
        energy, free = (_number(results.get(name)) for name in ('energy', 'free_energy'))
        found = {ENERGY: results.get('energy') if free is None else free}
        found |= {FORCES: results.get('forces'), STRESS: results.get('stress')}
        stores = {ENERGY: atoms.info, FORCES: atoms.arrays, STRESS: atoms.info}
        if all(value is None for value in found.values()):
            return
        if any(name in store for name, store in stores.items()):  # never half of one and half of the other
            self._beside.meet(place)
            return
        if found[ENERGY] is not None:
            (self._plain if free is None else self._free).meet(place)
            if free is not None and energy is not None and energy != free:
                self._free_differs.meet(place)
        if self._format == 'extxyz' and np.size(np.asarray(found[STRESS])) == 6:  # where nine are the rule
            self._six.meet(place)
        for name, value in found.items():
            if value is not None:
                stores[name][name] = value

    def _say(self, sentence: str, tally: _Tally) -> str:
        return f'{sentence} ({tally.count} of {self._total} structures, first in {tally.first})'


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else that stands in its place."""
    try:
        number = float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _stress_of(virial: Any, atoms: Atoms) -> Any:
    """Return the stress [eV/angstrom^3] of a virial [eV], which has the other sign; None where it has no meaning."""
    try:
        values = np.asarray(virial, dtype=np.float64)
    except (TypeError, ValueError):
        return virial  # its column says that this is no number
    return -values / atoms.get_volume() if atoms.cell.rank == 3 else None
