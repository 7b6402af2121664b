"""Quantum ESPRESSO as Debian has it, and its pseudopotentials."""

import shutil

import pytest
from machine import PSEUDO_FILES, PSEUDOS, find_program, require


@pytest.fixture(scope='session')
def pw_path():
    require('pw', 'aiida_quantumespresso')
    return find_program('pw.x')


@pytest.fixture(scope='session')
def pseudos(pw_path):
    """Return the file of every element."""
    return {element: PSEUDOS / name for element, name in PSEUDO_FILES.items()}


@pytest.fixture(scope='session')
def pw_code(pw_path, localhost):
    from aiida.orm import InstalledCode

    return InstalledCode(
        label='pw', computer=localhost, filepath_executable=pw_path, default_calc_job_plugin='quantumespresso.pw'
    ).store()


@pytest.fixture(scope='session')
def pseudo_family(pseudos, aiida_profile, tmp_path_factory):
    """Return the label of a family of three norm-conserving LDA pseudopotentials, which recommends no cutoffs."""
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import PseudoPotentialFamily

    folder = tmp_path_factory.mktemp('pseudos')
    for path in pseudos.values():
        shutil.copy(path, folder)
    return PseudoPotentialFamily.create_from_folder(folder, 'vbc', pseudo_type=UpfData).label


@pytest.fixture
def pw_builder(pw_code, localhost, pseudo_family):
    """Return a function that fills the builder of the labeller for two-atom cells: a second each."""
    from aiida_oodal.workchains.label.pw import PwLabelWorkChain
    from aiida_oodal.workchains.protocols import merge

    small = {
        'elements': ['Al', 'Mg'],
        'workflow': {
            'pseudo_family': pseudo_family,
            'kpoints_distance': 0.8,
            'pw': {
                'parameters': {'SYSTEM': {'ecutwfc': 12.0, 'ecutrho': 48.0, 'degauss': 0.05}},
                'metadata': {'options': {'withmpi': False, 'max_wallclock_seconds': 600}},
            },
        },
    }

    def fill(**overrides):
        return PwLabelWorkChain.get_builder_from_protocol(
            code=pw_code, computer=localhost, protocol='quick', overrides=merge(small, overrides)
        )

    return fill
