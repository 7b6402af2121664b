"""Train a linear ACE potential with its active set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.calculations.train_ace import TrainAceCalculation, check_training_nodes
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.labels import LABELLED_SET
from aiida_oodal.workchains.protocols import load_protocol

from .base import Forecast, TrainWorkChain

#: Ports of the job that follow from those of the contract.
_GIVEN = ('training', 'validation', 'anchors', 'learned')


class AceTrainWorkChain(TrainWorkChain):
    """Fit a linear ACE potential to all labels, in one job."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, exit codes."""
        super().define(spec)
        shared = spec.inputs.validator  # exposing inputs replaces it
        spec.expose_inputs(TrainAceCalculation, namespace='job', exclude=(*_GIVEN, 'settings'))
        spec.expose_inputs(TrainAceCalculation, include=('settings',))
        exposed = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: shared(inputs, ports) or (exposed and exposed(inputs, ports))
        spec.outline(cls.check_data, while_(cls.is_fit_due)(cls.run_fit), cls.inspect_fit)
        spec.exit_code(401, 'ERROR_DATA', message='Nothing was submitted: {message}')
        spec.exit_code(402, 'ERROR_FIT_FAILED', message='{message} See `verdi process report {pk}`.')

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode,
        computer: orm.Computer,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder filled from ``protocols/train_ace.yaml``.

        :param code: the engine's code, see :func:`aiida_oodal.calculations.codes.get_engine_code`.
        :param computer: where the job runs.
        :param overrides: fields of :class:`aiida_oodal.engine.ace.settings.AceFitSettings`.
        :param options: of the job; they win over those that the computer was set up with.
        """
        builder = cls.get_builder()
        builder.job.code = code
        builder.job.metadata.computer = computer
        builder.job.metadata.options.update(get_job_options(computer, 'train_ace', options))
        builder.settings = orm.Dict(load_protocol('train_ace', protocol, overrides))
        return builder

    @classmethod
    def forecast(cls, inputs: Mapping[str, Any], symbols: Sequence[str]) -> Forecast:
        """Return the elements of the labels, and the cutoff of the settings."""
        settings = inputs['settings'].get_dict() if 'settings' in inputs else {}
        return Forecast(sorted(set(symbols)), AceFitSettings.load(settings).largest_cutoff)

    @classmethod
    def check_labels(
        cls,
        inputs: Mapping[str, Any],
        labels: Mapping[str, StructureSetData],
        validation: StructureSetData | None,
        awaited: StructureSetData | None = None,
    ) -> str | None:
        """Return why labelled sets cannot be used for training or validation, or None."""
        return check_training_nodes(
            {
                **inputs,
                'training': labels,
                'validation': validation,
                'awaited': awaited,
                'learned': _find_before(inputs),
            }
        )

    @classmethod
    def stricter(cls, inputs: Mapping[str, Any], parts: Mapping[str, float]) -> dict[str, orm.Data] | None:
        """Return settings with larger weights of the given labelled sets and more functions, or None."""
        settings = AceFitSettings.load(inputs['settings'].get_dict() if 'settings' in inputs else {})
        names = {part for name, node in inputs['labels'].items() for part in node.get_set().split(LABELLED_SET, name)}
        changed = settings.stricter(label for label in parts if label in names)
        return None if changed is None else {'settings': orm.Dict(changed.plain())}

    def check_data(self) -> ExitCode | None:
        """Refuse data that no potential can be fitted to, with an exit code, which a validator could not give."""
        problem = check_training_nodes({**self._data(), 'settings': self.inputs.settings})
        return None if problem is None else self.exit_codes.ERROR_DATA.format(message=problem)

    def is_fit_due(self) -> bool:
        """Return whether the job has to be submitted, for the first time or again."""
        return self.is_due('fit')

    def run_fit(self) -> ToContext:
        """Submit the fit to all labels."""
        inputs = AttributeDict(self.exposed_inputs(TrainAceCalculation, 'job'))
        inputs.update(self._data(), settings=self.inputs.settings)
        return ToContext(fit=self.submit_once('fit', TrainAceCalculation, inputs))

    def inspect_fit(self) -> ExitCode | None:
        """Attach the potential and its errors."""
        fit = self.ctx.fit
        if not fit.is_finished_ok:
            message = fit.exit_message or f'{fit.process_label}<{fit.pk}> is {fit.process_state.value}.'
            return self.exit_codes.ERROR_FIT_FAILED.format(message=message, pk=fit.pk)
        self.out('learned', {'potential': fit.outputs.potential})
        self.out('results', fit.outputs.results)
        return None

    def _data(self) -> dict[str, Any]:
        """Return the labelled sets and the potential of the round before as inputs of the job."""
        data: dict[str, Any] = {'training': dict(self.inputs.labels), 'anchors': dict(self.inputs.get('anchors', {}))}
        if 'validation' in self.inputs:
            data['validation'] = self.inputs.validation
        if (before := _find_before(self.inputs)) is not None:
            data['learned'] = before
        return data


def _find_before(inputs: Mapping[str, Any]) -> AcePotentialData | None:
    """Return the potential before, if it is of this family."""
    before = inputs.get('learned', {}).get('potential')
    return before if isinstance(before, AcePotentialData) else None
