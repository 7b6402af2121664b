"""The input of a user's program, and its output as a label."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.executable import ExecutableOptions, read_output, render_input

LOOP = """{{ n_atoms }} {{ elements | join(' ') }}
{% for i in range(n_atoms) %}
{{ symbols[i] }} {{ '%.3f' | format(positions[i][0]) }}
{% endfor %}
"""


@pytest.fixture
def alloy():
    atoms = bulk('Cu', cubic=True)
    atoms.symbols[1] = 'Au'
    atoms.rattle(0.1, seed=3)
    return atoms


def label(atoms, **values):
    options = ExecutableOptions.load({'template': '{{ key }}', **values.pop('options', {})})
    return read_output(options, atoms, json.dumps(values).encode())


def test_a_template_is_filled_in(alloy):
    text = render_input(ExecutableOptions.load({'template': LOOP}), alloy, 'q1')
    lines = text.splitlines()
    assert lines[0] == '4 Au Cu'
    assert lines[1:] == [f'{s} {x:.3f}' for s, x in zip(alloy.symbols, alloy.positions[:, 0], strict=True)]


def test_a_format_of_ase_is_written(alloy, tmp_path):
    options = ExecutableOptions.load({'input_format': 'vasp', 'input_parameters': {'direct': True}})
    (tmp_path / 'POSCAR').write_text(render_input(options, alloy, 'q1'))
    read = ase.io.read(tmp_path / 'POSCAR', format='vasp')
    np.testing.assert_allclose(read.positions, alloy.positions, atol=1e-9)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({}, 'give either template or input_format'),
        ({'template': 'x', 'input_format': 'xyz'}, 'give either template or input_format'),
        ({'template': '{{ positons }}'}, "the template gives no input .*'positons' is undefined"),
        ({'template': '{% for %}'}, r'template, line 1: '),
        ({'template': '{{ zip(symbols) }}'}, "'zip' is undefined"),
        ({'template': "{{ ''.__class__.__mro__ }}"}, 'the template gives no input .*unsafe'),
        ({'input_format': 'xzy'}, "input_format = 'xzy' is no format that ASE writes"),
        ({'template': 'x', 'output_format': 'espresso-in-out'}, 'neither json nor a format that ASE reads'),
        ({'template': 'x', 'output_format': 'no.such.module:read'}, "cannot be imported .*No module named 'no'"),
        ({'template': 'x', 'energy_unit': 'Hartre'}, "'Hartre' is no unit of ase.units"),
        ({'template': 'x', 'argument': '-v'}, "'argument' is not a setting; did you mean 'arguments'"),
    ],
)
def test_what_cannot_work_for_any_structure_is_refused_at_once(values, message):
    assert ExecutableOptions.check({'template': 'fine'}) is None
    with pytest.raises(OodalError, match=message):
        ExecutableOptions.load(values)


def test_json_is_read_in_the_units_that_are_said(alloy):
    forces = np.arange(12.0).reshape(4, 3) / 100
    labelled = label(alloy, energy=-1.5, forces=forces.tolist(), stress=[1, 2, 3, 4, 5, 6])
    assert labelled.info['REF_energy'] == -1.5
    np.testing.assert_array_equal(labelled.arrays['REF_forces'], forces)
    np.testing.assert_array_equal(labelled.info['REF_stress'], [1, 2, 3, 4, 5, 6])
    options = {'energy_unit': 'Hartree', 'length_unit': 'Bohr'}
    labelled = label(alloy, energy=-1.5, forces=forces.tolist(), options=options)
    assert labelled.info['REF_energy'] == pytest.approx(-1.5 * units.Hartree)
    np.testing.assert_allclose(labelled.arrays['REF_forces'], forces * units.Hartree / units.Bohr)
    assert 'REF_stress' not in labelled.info


def test_output_that_ase_reads_is_matched_atom_by_atom(alloy, tmp_path):
    shuffled = alloy[[2, 0, 3, 1]]
    shuffled.calc = EMT(asap_cutoff=False)
    shuffled.get_forces()
    ase.io.write(tmp_path / 'out.extxyz', shuffled)
    options = ExecutableOptions.load({'template': 'x', 'output_file': 'run/out.extxyz', 'output_format': 'extxyz'})
    labelled = read_output(options, alloy, (tmp_path / 'out.extxyz').read_bytes())
    alloy.calc = EMT(asap_cutoff=False)
    np.testing.assert_allclose(labelled.arrays['REF_forces'], alloy.get_forces(), atol=1e-6)


def test_a_function_of_the_user_reads_what_nobody_else_can(alloy, tmp_path, monkeypatch):
    (tmp_path / 'odd_format.py').write_text(
        'def read(path):\n'
        '    energy, *forces = path.read_text().splitlines()\n'
        "    return {'energy': float(energy), 'forces': [[float(x) for x in line.split()] for line in forces]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ExecutableOptions.load({'template': 'x', 'output_format': 'odd_format:read'})
    labelled = read_output(options, alloy, b'-3.5\n' + b'0.1 0.2 0.3\n' * 4)
    assert labelled.info['REF_energy'] == -3.5
    assert labelled.arrays['REF_forces'].tolist() == [[0.1, 0.2, 0.3]] * 4


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'Segmentation fault', r'stdout cannot be read as json .* ends with: Segmentation fault'),
        (b'[1, 2]', 'it is list, and an object with energy and forces is needed'),
        (b'{"energy": 1.0, "gradient": []}', 'it has no forces; there is energy, gradient'),
        (b'{"energy": null, "forces": []}', 'it has no energy'),
        (b'{"energy": 1.0, "forces": [[0, 0, 0]]}', 'forces on 1 atoms, and the structure has 4'),
        (b'{"energy": NaN, "forces": [[0,0,0],[0,0,0],[0,0,0],[0,0,0]]}', 'not finite'),
        (b'{"energy": 1, "forces": [[0,0,0],[0,0,0],[0,0,0],[0,0,5e5]]}', 'are they in other units'),
    ],
)
def test_what_is_no_label_is_refused_with_the_reason(alloy, content, message):
    with pytest.raises(OodalError, match=message):
        read_output(ExecutableOptions.load({'template': 'x'}), alloy, content)


def test_molecules_have_no_cell():
    atoms = Atoms('H2', positions=[[0, 0, 0], [0, 0, 0.7]])
    text = render_input(ExecutableOptions.load({'template': '{{ pbc }} {{ cell }}'}), atoms, 'q')
    assert text == '[False, False, False] [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]'
