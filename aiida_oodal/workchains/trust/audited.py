"""The audit steps of a campaign: whether walkers that ran to their end are believed."""

from __future__ import annotations

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessSpec, ToContext

from aiida_oodal.calculations.learned import LEARNED
from aiida_oodal.calculations.trust.judge import JudgeCalculation, refuse_set
from aiida_oodal.engine.trust.audit import AuditSettings, explain_verdicts
from aiida_oodal.workchains.calls import Call, Stage
from aiida_oodal.workchains.resuming import ResumingWorkChain
from aiida_oodal.workchains.train.base import as_md_inputs

from .audit import AuditWorkChain, as_audited
from .signs import explain_going_on

#: How the names of the labels begin that audits have brought.
_NAME = 'audit_'


def define_audit(spec: ProcessSpec) -> None:
    """Define inputs and exit code of the audit."""
    spec.input(
        'audit.settings',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        required=False,
        validator=lambda node, _: None if node is None else AuditSettings.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.trust.audit.AuditSettings`: how many frames of each walker are labelled '
        'when all have run to their end, the tolerance, and the budget. `frames` = 0: walkers are believed.',
    )
    spec.expose_inputs(
        JudgeCalculation,
        namespace='audit.judge',
        exclude=('structures', 'validation', 'starts', 'ends', *LEARNED),
        namespace_options={
            'required': False,
            'populate_defaults': False,
            'help': 'The job that compares forces with the labels of the audit; without it there is no audit.',
        },
    )
    spec.exit_code(
        404,
        'ERROR_AUDIT_FAILED',
        message='every walker ran to its end in round {round}, but it is not known whether the potential was right '
        'there: {message} {go_on}',
    )


class AuditedWalkers(ResumingWorkChain):
    """Have frames of walkers labelled that ran to their end; those that fail count as if they had halted.

    Mixed into :class:`.CampaignWorkChain`, which has ``inputs`` and ``is_last_pass``, and in ``ctx`` what it has
    ``learned``, its ``round``, its ``labels``, and whether this round ``passed``. Labels of audits are trained on as
    all others.
    """

    def should_audit(self) -> bool:
        """Return whether all walkers ran to their end for the last time, and an audit is wanted."""
        wanted = bool(self.inputs.get('audit', {}).get('judge')) and self._audit_settings.frames > 0
        return wanted and bool(self.ctx.passed) and bool(self.is_last_pass())

    def run_audit(self) -> ToContext | ExitCode:
        """Submit the audit of all walkers, unless its budget is spent."""
        spent = sum(node.n_structures for name, node in self.ctx.labels.items() if name.startswith(_NAME))
        if spent >= self._audit_settings.max_labels:
            return self._fail_audit(
                f'the budget of the audit is spent ({spent} of {self._audit_settings.max_labels} labels), and its last '
                'verdicts are in the report. Raise `max_labels` or `tolerance` in `audit`.'
            )
        inputs = AttributeDict(as_md_inputs(self.ctx.learned, self.inputs.get('ensemble', {}).get('settings')))
        inputs.walkers = {
            name: as_audited(self.ctx[f'explore_{name}'], walker['structure'])
            for name, walker in sorted(self.inputs.walkers.items())
        }
        inputs.label = {'workflow': self.inputs.label.workflow, 'inputs': self.inputs.label.inputs}
        inputs.campaign = orm.Str(self.node.uuid)
        inputs.carve, inputs.judge = self.inputs.carve, AttributeDict(self.inputs.audit.judge)
        if 'validation' in self.inputs and refuse_set({**self.inputs, **self.ctx.learned}, 'validation') is None:
            inputs.judge.validation = self.inputs.validation
        if 'settings' in self.inputs.audit:
            inputs.settings = self.inputs.audit.settings
        return ToContext(audit=self.submit_once(str(Call(Stage.AUDIT, self.ctx.round)), AuditWorkChain, inputs))

    def inspect_audit(self) -> ExitCode | None:
        """Add the labels to the training set; if a walker failed, this round has not passed."""
        audit = self.ctx.audit
        if not audit.is_finished_ok:
            return self._fail_audit(audit.exit_message or f'{audit.process_label}<{audit.pk}> {audit.process_state}.')
        verdicts = audit.outputs.results['walkers']
        for sentence in explain_verdicts(verdicts):
            self.report(f'round {self.ctx.round}: {sentence}')
        if 'labels' in audit.outputs:
            self.add_labels({f'{_NAME}{self.ctx.round}': audit.outputs.labels})
        self.ctx.passed = all(verdict['passed'] for verdict in verdicts.values())
        if not self.ctx.passed and 'labels' not in audit.outputs:
            reasons = next(verdict['reasons'] for verdict in verdicts.values() if not verdict['passed'])
            return self._fail_audit(f'{"; ".join(reasons)}.')
        return None

    def _fail_audit(self, message: str) -> ExitCode:
        self.ctx.ended_by, self.ctx.reason = 'audit', message
        self.attach_known()
        go_on = explain_going_on(self.ctx.learned, self.node.pk)
        code: ExitCode = self.exit_codes.ERROR_AUDIT_FAILED.format(round=self.ctx.round, message=message, go_on=go_on)
        return code

    @property
    def _audit_settings(self) -> AuditSettings:
        audit = self.inputs.get('audit', {})
        return AuditSettings.load(audit['settings'].get_dict() if 'settings' in audit else {})
