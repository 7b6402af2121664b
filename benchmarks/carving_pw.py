"""What do forces of clusters cost under real `pw.x`? `python benchmarks/carving_pw.py [--keep FILE]`.

One cluster is cut around the atom with the largest gamma of a small cell of Al (107 or 108 atoms: a vacancy, a melt),
in each of the ways of `carving_bakeoff.py`, with a radius of 3.2 and a buffer of 0.8 angstrom: about 32 atoms. The
parent, whole, and the clusters are labelled by `pw.x`. The table has the CPU time of each calculation and what a
useful force of it costs, one within 0.1 eV/angstrom of the parent's.

The parents take a quarter of an hour each, a cluster a minute. With `--keep` each row is written as it comes, and is
not calculated again by the next call.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read, write
from carve import RADIUS
from carving_bakeoff import (
    STRUCTURES,
    SYSTEMS,
    WAYS,
    Knife,
    Labeller,
    compare_with_parent,
    describe_machine,
    grade_parents,
    know_the_bulk,
    make_snapshots,
)

from aiida_oodal.engine.ace.fit import AcePotential, fit_ace
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.carve.centres import worst_centres
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.linear.targets import make_target
from aiida_oodal.workchains.protocols import load_protocol

PSEUDOS = Path('/usr/share/espresso/pseudo')
WHOLE = 'parent whole'

Row = dict[str, Any]


def pw_calculator(folder: Path, kpts: tuple[int, int, int], shift: tuple[int, int, int]) -> Calculator:
    """Make a loose `pw.x` for Al: 10 Ry and the norm-conserving pseudopotential that Debian ships."""
    from ase.calculators.espresso import Espresso, EspressoProfile

    return Espresso(
        profile=EspressoProfile(command='pw.x', pseudo_dir=PSEUDOS),
        pseudopotentials={'Al': 'Al.pz-vbc.UPF'},
        input_data={
            'control': {'tprnfor': True, 'tstress': True, 'disk_io': 'none'},
            'system': {'ecutwfc': 10.0, 'occupations': 'smearing', 'smearing': 'mv', 'degauss': 0.03, 'nosym': True},
            'electrons': {'conv_thr': 1e-6, 'mixing_beta': 0.5, 'electron_maxstep': 60},
        },
        kpts=kpts,
        koffset=shift,
        directory=folder,
    )


def label_by_pw(atoms: Atoms, *, whole: bool) -> Atoms:
    """Label by `pw.x`.

    :return: a copy; its ``info`` has CPU ``seconds`` and ``iterations`` of the self-consistent cycle, and, where it is
        not labelled, the ``problem``.
    """
    with tempfile.TemporaryDirectory() as name:
        mesh = ((2, 2, 2), (1, 1, 1)) if whole else ((3, 3, 3), (0, 0, 0))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            labelled = label_structure(atoms, pw_calculator(Path(name), *mesh))
        except OodalError as error:
            labelled = atoms.copy()
            labelled.info['problem'] = f'pw.x does not converge or fails: {str(error)[:60]}'
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        output = Path(name) / 'espresso.pwo'
        text = output.read_text(errors='replace') if output.exists() else ''
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    labelled.info |= {'seconds': seconds, 'iterations': text.count('iteration #')}
    return labelled


def label_once(folder: Path | None, name: str, atoms: Atoms, *, whole: bool = False) -> Atoms:
    """Label by `pw.x`, or read what an earlier call labelled."""
    path = folder / f'{name.replace(" ", "_")}.extxyz' if folder else None
    if path and path.exists():
        return read(path)
    labelled = label_by_pw(atoms, whole=whole)
    print(f'{name}: {labelled.info["seconds"]:.0f} s', flush=True)
    if path:
        write(path, labelled)
    return labelled


def fit_potential(labeller: Labeller) -> AcePotential:
    """Fit a small potential to the bulk."""
    protocol = AceFitSettings(**load_protocol('train_ace', 'balanced'))
    values = replace(protocol, number_of_functions=60, max_functions=None, fit_atom_energies=False, cutoff=4.0)
    known = know_the_bulk(SYSTEMS['al'], labeller, values, 0)
    return fit_ace([make_target(atoms, values, 'bulk') for atoms in known], values).potential


def run(options: argparse.Namespace) -> Iterator[tuple[str, str, Row]]:
    """Cut cells of about 32 atoms, label them and their parents by `pw.x`, and yield a row for each."""
    system = replace(SYSTEMS['al'], cells=3)
    labeller = Labeller.of(system)
    potential = fit_potential(labeller)
    parents = make_snapshots(system, labeller, STRUCTURES, 0, options.steps)
    grade_parents(parents, potential)
    knife = Knife(potential, CarveSettings(radius=3.2, buffer=0.8), options.settle_steps, 0, epsilon=0.2)
    for name in options.structures:
        bare = parents[name]
        (centre,) = worst_centres(bare, gamma_min=0.0, max_centres=1, min_separation=RADIUS)
        parent = label_once(options.keep, f'{name}, {WHOLE}', bare, whole=True)
        if 'problem' in parent.info:
            raise SystemExit(f'{name}: {parent.info["problem"]}')
        useful = {'atoms': len(parent), 'useful': len(parent), 'of core': len(parent), 'centre': 0.0, 'core': 0.0}
        yield name, WHOLE, parent.info | useful
        for way in options.ways:
            made = knife.cut(bare, centre, way)
            if isinstance(made, OodalError):
                yield name, way, {'problem': str(made), 'seconds': 0.0, 'iterations': 0, 'atoms': 0}
                continue
            cluster = label_once(options.keep, f'{name}, {way}', made)
            row = cluster.info | {'atoms': len(cluster)}
            if 'problem' not in row:
                row |= compare_with_parent(cluster, parent, potential)
            yield name, way, row


def format_row(name: str, way: str, row: Row) -> str:
    """Return a line of the table."""
    begin = f'| {name} | {way} | {row["atoms"]} | {row["iterations"]} | {row["seconds"]:.0f} | '
    if 'problem' in row:
        return f'{begin}0 | | {row["problem"]} | |'
    each = f'{row["seconds"] / row["useful"]:.1f}' if row['useful'] else 'none useful'
    centre, core = (1e3 * np.sqrt(row[key]) for key in ('centre', 'core'))
    return f'{begin}{row["useful"]} of {row["of core"]} | {each} | {centre:.0f} | {core:.0f} |'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--structures', nargs='+', choices=STRUCTURES, default=['vacancy', 'melt'])
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--steps', type=int, default=120, help='MD steps before a snapshot')
    parser.add_argument('--settle-steps', type=int, default=40)
    parser.add_argument('--keep', type=Path, help='folder for what is labelled, which is taken from there')
    options = parser.parse_args()
    if shutil.which('pw.x') is None or not (PSEUDOS / 'Al.pz-vbc.UPF').exists():
        raise SystemExit('pw.x or its pseudopotential of Al is missing: apt-get install quantum-espresso '
                         'quantum-espresso-data')  # fmt: skip
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    print(describe_machine())
    rows = [format_row(*row) for row in run(options)]
    print('\n| parent | way | atoms | iterations | CPU (s) | useful forces | CPU per useful force (s) | centre (meV/Å) '
          '| core (meV/Å) |\n|---|---|---|---|---|---|---|---|---|')  # fmt: skip
    print('\n'.join(rows))


if __name__ == '__main__':
    main()
