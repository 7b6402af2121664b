"""The potential or the ensemble that a job uses: ports, checks, and the files and the description for the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ProcessSpec
from ase.data import chemical_symbols

from aiida_oodal.data import MaceModelData, OodReferenceData, PotentialData
from aiida_oodal.data.arrays import read_arrays
from aiida_oodal.data.identity import INSIST, check_members
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import REFERENCE_FILE
from aiida_oodal.engine.mace.ensemble_settings import EnsembleSettings

#: Ports of what was learned; a process is given exactly one of them.
LEARNED = ('potential', 'ensemble')


@dataclass(frozen=True)
class LearnedFiles:
    """A potential, or an ensemble with its reference, as files and description for a job.

    :ivar elements: chemical symbols of the elements that it knows.
    :ivar cutoff: range [angstrom]; None if it is only in a model file, which is opened in jobs only.
    :ivar job: what the engine reads about it, see :func:`aiida_oodal.engine.evaluator.open_forces`.
    :ivar copies: ``(node uuid, name in the node, name in the job)``.
    :ivar reference: the reference of an ensemble; None for a potential.
    """

    elements: list[str]
    cutoff: float | None
    job: dict[str, Any]
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    reference: OodReferenceData | None = None

    def write_files(self, folder: Path) -> list[str]:
        """Write the reference of an ensemble into the folder of a job, and return the names of the files."""
        if self.reference is None:
            return []
        np.savez(folder / REFERENCE_FILE, allow_pickle=False, **read_arrays(self.reference))
        return [REFERENCE_FILE]


def define_learned(spec: ProcessSpec, prefix: str = '', *, text: str = 'What was learned.') -> None:
    """Define the ports ``potential`` and ``ensemble``, both optional: a validator has to require one of them.

    :param prefix: namespace that they are in, with a dot at its end.
    :param text: what the potential or ensemble is for; begins the help of both ports.
    """
    spec.input(
        f'{prefix}potential',
        valid_type=PotentialData,
        required=False,
        help=f'{text} Here: a potential that computes gamma itself, such as ACE with its active set.',
    )
    define_ensemble(
        spec,
        f'{prefix}ensemble',
        text=f'{text} Here: an ensemble of MACE models and the reference that was fitted for it.',
    )


def define_ensemble(spec: ProcessSpec, name: str = 'ensemble', *, text: str) -> None:
    """Define ``ensemble.models``, ``.reference`` and ``.settings``.

    :param text: what the ensemble is for.
    """
    spec.input_namespace(name, required=False, help=text)
    spec.input_namespace(
        f'{name}.models',
        valid_type=MaceModelData,
        dynamic=True,
        required=False,
        help='The models by label: w1, w2, ...; they differ only in their seed.',
    )
    spec.input(
        f'{name}.reference',
        valid_type=OodReferenceData,
        required=False,
        help='Reference that was fitted on latents of the same models. It defines gamma: gamma is 1 at the score that '
        'the share `level` of its held-out atoms stays below.',
    )
    spec.input(
        f'{name}.settings',
        valid_type=orm.Dict,
        required=False,
        serializer=orm.to_aiida_type,
        validator=lambda node, _: None if node is None else EnsembleSettings.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.mace.ensemble_settings.EnsembleSettings`: which model gives forces, ...',
    )


def describe_learned(inputs: Mapping[str, Any]) -> LearnedFiles:
    """Return files and description of the potential or the ensemble among the inputs.

    :param inputs: with ``potential`` or ``ensemble``, namespaces nested.
    :raises OodalError: if neither is given, or an ensemble is incomplete.
    """
    if (potential := inputs.get('potential')) is not None:
        return LearnedFiles(potential.elements, potential.cutoff, potential.describe(), potential.list_copies())
    if not inputs.get('ensemble'):
        raise OodalError(f'there is no potential and no ensemble: give one of {", ".join(LEARNED)}')
    return describe_ensemble(inputs['ensemble'])


def describe_ensemble(ensemble: Mapping[str, Any]) -> LearnedFiles:
    """Return files and description of an ensemble.

    :raises OodalError: if models or reference are missing, or do not belong together.
    """
    if problem := check_ensemble(ensemble):
        raise OodalError(problem)
    models, reference = ensemble['models'], ensemble['reference']
    files = {label: f'{label}.model' for label in models}
    elements = [chemical_symbols[number] for number in reference.base.attributes.get('elements')]
    settings = EnsembleSettings.load(ensemble['settings'].get_dict() if 'settings' in ensemble else {})
    if settings.forces not in (None, *models, 'mean'):
        raise OodalError(f'ensemble settings: forces = {settings.forces!r}: there are {", ".join((*models, "mean"))}')
    return LearnedFiles(
        elements,
        reference.base.attributes.get('cutoff', None),
        {
            'kind': 'mace',
            'models': files,
            'reference': REFERENCE_FILE,
            'elements': elements,
            'settings': settings.model_dump(mode='json'),
        },
        [(models[label].uuid, MaceModelData.MODEL, name) for label, name in files.items()],
        reference,
    )


def check_ensemble(ensemble: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an ensemble, or None: a missing part, two equal models, a reference of other models."""
    for name in ('models', 'reference'):
        if not ensemble.get(name):
            return f'ensemble.{name} is missing'
    head = ensemble['settings'].get_dict().get('head') if 'settings' in ensemble else None
    problem: str | None = check_members(ensemble['models'], head)
    problem = problem or ensemble['reference'].check_models(ensemble['models'], given_as='ensemble.models')
    # MD by models of another reference would halt anywhere or nowhere: there is nothing to insist on
    return problem and problem.replace(INSIST, 'Fit a reference of these models: `oodal.fit_reference`, or a screening')
