"""The base class of trainers: the ports, and the methods that a campaign calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiida import orm
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.learned import define_learned
from aiida_oodal.data import MaceModelData, OodReferenceData, PotentialData, StructureSetData
from aiida_oodal.workchains.resuming import ResumingWorkChain

from .levels import validate_levels


@dataclass(frozen=True)
class Forecast:
    """Elements and cutoff of what a training will make, before it runs.

    :param elements: chemical symbols of the elements that it will know.
    :param cutoff: range [angstrom]; None if it is known only after the training.
    :param models: labels of the models of an ensemble.
    """

    elements: Sequence[str]
    cutoff: float | None
    models: Sequence[str] = ()


class TrainWorkChain(ResumingWorkChain):
    """Train a potential or an ensemble on all labels so far.

    A trainer is a subclass with an outline of its own that attaches ``learned`` and ``results``, and with
    :meth:`forecast` and :meth:`check_labels`, which a campaign calls before it submits anything.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define the ports of the contract."""
        super().define(spec)
        spec.input_namespace(
            'labels',
            valid_type=StructureSetData,
            dynamic=True,
            help='Labelled sets with REF_energy [eV], REF_forces [eV/angstrom] and, for clusters, force_mask; of long '
            'campaigns packs of such sets, see `pack_labels`.',
        )
        spec.input(
            'validation',
            valid_type=StructureSetData,
            required=False,
            help='Labelled set that is not trained on: the errors on it are reported.',
        )
        spec.input(
            'mix_levels',
            valid_type=orm.Bool,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Bool(False),
            help='Whether labels of several levels of theory may be trained on together, although their energies '
            'differ.',
        )
        spec.inputs.validator = validate_levels
        spec.input_namespace(
            'anchors',
            valid_type=StructureSetData,
            dynamic=True,
            required=False,
            help='Further labelled sets that are not trained on, each under a key that no other set has: the errors on '
            'each are reported.',
        )
        spec.input_namespace(
            'learned', required=False, help='The potential or the ensemble of the round before, if there is one.'
        )
        define_learned(spec, 'learned.', text='From the round before.')
        spec.output_namespace('learned', help='The trained potential or ensemble, as MD takes it.')
        spec.output('learned.potential', valid_type=PotentialData, required=False, help='A potential.')
        spec.output_namespace('learned.ensemble', required=False, help='An ensemble and its reference.')
        spec.output_namespace(
            'learned.ensemble.models', valid_type=MaceModelData, dynamic=True, required=False, help='By label.'
        )
        spec.output(
            'learned.ensemble.reference',
            valid_type=OodReferenceData,
            required=False,
            help='Reference that was fitted on latents of these models.',
        )
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='Errors: energy [meV/atom], force [meV/angstrom], stress [GPa], largest gamma; `parts` has them for '
            'every labelled set by its label, `by_element` for every element.',
        )

    @classmethod
    @abstractmethod
    def forecast(cls, inputs: Mapping[str, Any], symbols: Sequence[str]) -> Forecast:
        """Return elements and cutoff of what a training will make, before it runs.

        :param inputs: of the trainer; labels need not be there.
        :param symbols: elements of the structures that will be labelled.
        """

    @classmethod
    def check_labels(
        cls,
        inputs: Mapping[str, Any],
        labels: Mapping[str, StructureSetData],
        validation: StructureSetData | None,
        awaited: StructureSetData | None = None,
    ) -> str | None:
        """Return why labelled sets cannot be used for training or validation, or None; called at submission.

        :param inputs: of the trainer, ``learned`` among them.
        :param labels: sets to train on.
        :param validation: labelled set that is not trained on.
        :param awaited: structures that will be labelled and trained on, too.
        """
        return None

    @classmethod
    def stricter(cls, inputs: Mapping[str, Any], parts: Mapping[str, float]) -> dict[str, orm.Data] | None:
        """Return inputs with which a training may forget less than the last one, or None if there are none.

        A campaign calls this if a training is worse than the one before. It trains once more with the inputs that are
        returned, and keeps them for later trainings.

        :param inputs: of that training, `labels` among them.
        :param parts: label of each labelled set that got worse, and by what factor its error rose.
        :return: the ports that change.
        """
        return None


def as_md_inputs(learned: Mapping[str, Any], settings: orm.Dict | None) -> dict[str, Any]:
    """Return what was learned as inputs of MD; an ensemble gets the settings that the user gave for it."""
    if settings is None or 'ensemble' not in learned:
        return dict(learned)
    return {**learned, 'ensemble': {**learned['ensemble'], 'settings': settings}}


def get_learned(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the potential or the ensemble of a namespace (``learned``, ``initial``) as inputs of a process."""
    learned: dict[str, Any] = {}
    if 'potential' in outputs:
        learned['potential'] = outputs['potential']
    if outputs.get('ensemble'):
        ensemble = outputs['ensemble']
        learned['ensemble'] = {'models': dict(ensemble['models']), 'reference': ensemble['reference']}
    return learned
