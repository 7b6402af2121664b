"""Read what an ACE potential says about itself from its files, without pyace and without trusting them."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.data import atomic_numbers

from aiida_oodal.engine.errors import OodalError

#: Key of the metadata of a B-basis under which a fit writes its atom energies.
ATOM_ENERGIES = 'atom_energies'


@dataclass(frozen=True)
class AceHeader:
    """What a B-basis is for.

    :param elements: in the order of the potential.
    :param cutoff: the largest cutoff, angstrom.
    :param number_of_functions: basis functions by element; the active set of an element is a square of this size.
    :param atom_energies: eV, what belongs to the energies of the potential to make labels of them; empty if the file
        does not say.
    :param n_densities: densities that are embedded, by element; 1 in a linear potential.
    """

    elements: tuple[str, ...]
    cutoff: float
    number_of_functions: Mapping[str, int]
    atom_energies: Mapping[str, float] = field(default_factory=dict)
    n_densities: Mapping[str, int] = field(default_factory=dict)


def read_ace_header(source: Path | str) -> AceHeader:
    """Read a ``.yaml`` B-basis.

    :param source: a path, or the text of the file.
    :raises OodalError: if it is not a B-basis, for example the tabulated ``.yace`` form.
    """
    name = str(source) if isinstance(source, Path) else 'the B-basis'
    text = _read_text(source, name)
    # The .yace form is not plain YAML either: its keys are lists.
    if re.search(r'^functions:', text, re.MULTILINE) and re.search(r'^bonds:', text, re.MULTILINE):
        raise OodalError(
            f'{name} is the tabulated .yace form: give the .yaml B-basis of the same potential, only that knows gamma'
        )
    content = _parse(text, name)
    if not isinstance(content, Mapping):
        raise OodalError(
            f'{name} is not an ACE B-basis: it holds no YAML mapping; give the .yaml file of the potential'
        )
    blocks = content.get('species')
    if not isinstance(blocks, list) or not blocks:
        raise OodalError(
            f"{name} is not an ACE B-basis: it has no 'species' list; give the .yaml file of the potential"
        )
    try:
        return _summarise(blocks, content.get('metadata') or {})
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise OodalError(
            f'{name} is not a complete ACE B-basis ({type(error).__name__}: {error}): write it again'
        ) from error


def check_active_set(path: Path, header: AceHeader) -> None:
    """Check that an ``.asi`` holds the active set of a basis.

    :param path: npz with the inverse active set of each element, shape ``(n_functions, n_functions)``.
    :param header: of the B-basis.
    :raises OodalError: if it cannot be read, lacks an element, or belongs to a basis of another size.
    """
    if not zipfile.is_zipfile(path):
        problem = 'is no npz archive' if path.is_file() else 'does not exist'
        raise OodalError(f'{path} {problem}: give the .asi file of the potential')
    try:
        with np.load(path, allow_pickle=False) as archive:
            sets = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise OodalError(
            f'{path} cannot be read as an active set ({error}): give the .asi file of the potential'
        ) from error
    if set(sets) != set(header.elements):
        raise OodalError(
            f'{path} is the active set for {" ".join(sorted(sets))} and the basis for {" ".join(header.elements)}: '
            'give the .asi that was made with this .yaml'
        )
    for element, size in header.number_of_functions.items():
        inverse = sets[element]
        densities = header.n_densities.get(element, 1)
        if densities > 1 and inverse.shape == (densities * size, densities * size):
            raise OodalError(
                f'{path} is a nonlinear active set: {element} has {densities} densities, and its rows hold derivatives '
                f'of the energy by {densities} x {size} coefficients, not the {size} projections by which clusters are '
                'graded and chosen; give the linear active set (.asi) of the same potential, which pace_activeset '
                'makes by default'
            )
        if inverse.shape != (size, size):
            raise OodalError(
                f'{path}: {element} has the shape {inverse.shape} and the basis {size} functions: '
                'give the .asi that was made with this .yaml'
            )
        if inverse.dtype.kind != 'f' or not np.isfinite(inverse).all():
            raise OodalError(f'{path}: {element} holds values that are not finite numbers: make the active set again')


def _read_text(source: Path | str, name: str) -> str:
    try:
        return source.read_text(encoding='utf-8') if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise OodalError(f'{name} cannot be read as text ({error}): give the .yaml file of the potential') from error


def _parse(text: str, name: str) -> Any:
    """Load YAML by the C parser where there is one: pure Python is slow on a large basis."""
    try:
        return yaml.load(text, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise OodalError(f'{name} cannot be read as YAML ({error}): give the .yaml file of the potential') from error


def _summarise(blocks: list[Mapping[str, Any]], metadata: Mapping[str, Any]) -> AceHeader:
    """Collect elements, cutoff and the functions of each central atom (the first symbol of a function's type)."""
    elements = sorted({str(block['speciesblock']).split()[0] for block in blocks})
    unknown = [name for name in elements if name not in atomic_numbers]
    if unknown:
        raise ValueError(f'{", ".join(unknown)} is no element')
    counts = dict.fromkeys(elements, 0)
    for block in blocks:
        for function in block.get('nbody') or []:
            counts[str(function['type']).split()[0]] += 1
    cutoff = max(float(block['rcutij']) for block in blocks if 'rcutij' in block)
    if not cutoff > 0 or min(counts.values()) == 0:
        raise ValueError(f'cutoff {cutoff}, functions {counts}')
    densities = {str(block['speciesblock']): int(block['ndensityi']) for block in blocks if 'ndensityi' in block}
    energies = json.loads(str(metadata.get(ATOM_ENERGIES, '{}')))
    return AceHeader(
        elements=tuple(elements),
        cutoff=cutoff,
        number_of_functions=counts,
        atom_energies={str(name): float(value) for name, value in energies.items()},
        n_densities={name: densities.get(name, 1) for name in elements},
    )
