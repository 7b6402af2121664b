"""Conversions of trained MACE models by mace-torch's own programs, as jobs of aiida-shell.

Each function returns a builder for :func:`aiida.engine.submit`. The programs must be on PATH on the computer, as they
are wherever mace-torch is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from aiida import orm
from aiida.engine import ProcessBuilder
from aiida_shell import ShellJob
from aiida_shell.launch import prepare_shell_job_inputs

from aiida_oodal.data import MaceModelData
from aiida_oodal.engine.errors import OodalError

__all__ = ('LAMMPS_OUTPUTS', 'build_head_selection', 'build_lammps_conversion', 'read_selected_model')

#: Output of the job by interface: what the shell job makes of the name of the file that the program writes.
LAMMPS_OUTPUTS = {'mliap': 'mace_model_mliap_lammps_pt', 'libtorch': 'mace_model_lammps_pt'}
_LAMMPS_FILES = {'mliap': f'{MaceModelData.MODEL}-mliap_lammps.pt', 'libtorch': f'{MaceModelData.MODEL}-lammps.pt'}
_SELECTED_FILE = 'selected.model'


def build_lammps_conversion(
    model: MaceModelData,
    computer: orm.Computer,
    *,
    interface: Literal['mliap', 'libtorch'] = 'mliap',
    precision: Literal['float32', 'float64'] = 'float64',
    head: str | None = None,
    options: dict[str, Any] | None = None,
) -> ProcessBuilder:
    """Prepare a job of ``mace_create_lammps_model``: a trained model -> the file that LAMMPS reads.

    The file is the output that :data:`LAMMPS_OUTPUTS` names.

    :param interface: ``mliap`` for ``pair_style mliap unified`` (GPUs; the program needs cuequivariance and
        cuequivariance-torch), ``libtorch`` for ``pair_style mace``.
    :param head: of a model of several heads: which to take; the program would ask.
    :param options: ``metadata.options`` of the job.
    :raises OodalError: if the interface is unknown.
    """
    if interface not in LAMMPS_OUTPUTS:
        raise OodalError(f'interface = {interface!r}: there are {", ".join(LAMMPS_OUTPUTS)}')
    arguments = ['{model}', '--format', interface, '--dtype', precision, *(['--head', head] if head else [])]
    outputs = [_LAMMPS_FILES[interface]]
    return _build('mace_create_lammps_model', model, computer, arguments, outputs, options)


def build_head_selection(
    model: MaceModelData, computer: orm.Computer, head: str, *, options: dict[str, Any] | None = None
) -> ProcessBuilder:
    """Prepare a job of ``mace_select_head``: a model of several heads -> output ``model`` of one.

    :param head: to keep: ``Default`` is what multihead fine-tuning learned, ``pt_head`` what it replayed.
    :param options: ``metadata.options`` of the job.
    """
    arguments = ['--head_name', head, '--output_file', _SELECTED_FILE, '{model}']
    builder = _build('mace_select_head', model, computer, arguments, None, options)
    # the file becomes a model by this function, and need not be an output of its own
    builder.parser = 'aiida_oodal.shell_parsers:selected_model'
    builder.metadata.options.additional_retrieve = [_SELECTED_FILE]
    return builder


def read_selected_model(dirpath: Path) -> dict[str, orm.Data]:
    """Read what ``mace_select_head`` wrote; the function that aiida-shell calls.

    :raises FileNotFoundError: if it wrote nothing.
    """
    path = dirpath / _SELECTED_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f'mace_select_head left no model; its reason is in the output stderr or stdout ({path})'
        )
    return {'model': MaceModelData(path)}


def _build(
    program: str,
    model: MaceModelData,
    computer: orm.Computer,
    arguments: list[str],
    outputs: list[str] | None,
    options: dict[str, Any] | None,
) -> ProcessBuilder:
    """Prepare a job of one of mace-torch's programs."""
    # what it warns of on stderr would count as a failure
    quiet = {'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    given = {'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 1}, **(options or {})}
    given['environment_variables'] = quiet | given.get('environment_variables', {})
    inputs = prepare_shell_job_inputs(
        program,
        arguments=arguments,
        nodes={'model': model},
        filenames={'model': MaceModelData.MODEL},
        outputs=outputs,
        metadata={'computer': computer, 'options': given},
        # it is found when the job runs, in the environment of the computer
        resolve_command=False,
    )
    builder = ShellJob.get_builder()
    for name, value in inputs.items():
        if value is not None:
            setattr(builder, name, value)
    return builder
