"""What a child refuses ends its caller with a message and what there is, never in a traceback."""

import re

import pytest
from aiida import orm
from aiida.engine import WorkChain, calcfunction, run_get_node
from ase.build import bulk
from toys import PullWorkChain, ToyLabelWorkChain, ToyTrainWorkChain

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.label.base import LabelJob
from aiida_oodal.workchains.resuming import ResumingWorkChain


@calcfunction
@explained
def refuse_odd(number):
    if number.value % 2:
        raise OodalError(f'{number.value} is odd: give an even number')
    return orm.Int(number.value // 2)


class PickyWorkChain(WorkChain):
    """Refuses negative numbers before it runs."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input(
            'number',
            valid_type=orm.Int,
            validator=lambda node, _: None if node.value >= 0 else f'number = {node.value} must not be negative',
        )
        spec.outline(cls.rest)

    def rest(self):
        pass


class CallingWorkChain(ResumingWorkChain):
    """Calls whatever is asked for, after it has something to show."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('way', valid_type=orm.Str)
        spec.output('shown', valid_type=orm.Int)
        spec.outline(cls.call)

    def attach_known(self):
        self.out('shown', orm.Int(7).store())

    def call(self):
        inputs = {'number': orm.Int(-1)}
        ways = {
            'value': lambda: self.submit_once('child', PickyWorkChain, inputs),
            'type': lambda: self.submit_once('child', PickyWorkChain, {'number': orm.Str('x')}),
            'unknown': lambda: self.submit_once('child', PickyWorkChain, {'numbr': orm.Int(1)}),
            'looked at': lambda: self.require_accepted(PickyWorkChain, inputs),
            'function': lambda: self.result_of('half', refuse_odd, orm.Int(3)),
            'step': lambda: (_ for _ in ()).throw(OodalError('the step cannot do it')),
        }
        ways[self.inputs.way.value]()


@pytest.mark.parametrize(
    ('way', 'message'),
    [
        ('value', r'PickyWorkChain was not submitted: .*number = -1 must not be negative'),
        ('type', r"PickyWorkChain was not submitted: .*'number' is not of the right type"),
        ('unknown', r"PickyWorkChain was not submitted: .*required value was not provided for 'number'"),
        ('looked at', r'PickyWorkChain was not submitted: .*number = -1 must not be negative'),
        ('function', r'refuse_odd<\d+>: 3 is odd: give an even number'),
        ('step', r'^the step cannot do it$'),
    ],
)
def test_a_refusal_is_an_exit_code_and_what_there_is_is_attached(way, message):
    outputs, node = run_get_node(CallingWorkChain, way=orm.Str(way))
    assert node.is_finished, node.exception
    assert node.exit_status == 210
    assert re.search(message, node.exit_message, flags=re.DOTALL)
    assert outputs['shown'].value == 7


class PickyPullWorkChain(PullWorkChain):
    """Labels small structures only, and says so before it runs."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.inputs.validator = lambda inputs, _: (
            'too large for this labeller'
            if any(len(node.sites) > 4 for node in inputs['structures'].values())
            else None
        )


class PickyLabelWorkChain(ToyLabelWorkChain):
    def make_jobs(self, nodes):
        for key, node in nodes.items():
            yield LabelJob(PickyPullWorkChain, {'stiffness': self.inputs.stiffness, 'structures': {key: node}}, [key])


def test_a_structure_that_a_job_of_labels_refuses_fails_alone(entry_points):
    entry_points.add(PickyPullWorkChain, 'aiida.workflows:oodal.picky_pull')
    entry_points.add(PickyLabelWorkChain, 'aiida.workflows:oodal.label.picky')
    small, large = bulk('Al', a=4.31, cubic=True), bulk('Al', a=4.31, cubic=True).repeat(2)
    structures = StructureSetData([large, small])
    outputs, node = run_get_node(PickyLabelWorkChain, structures=structures, stiffness=orm.Float(0.25))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 1
    (reason,) = outputs['failures'].get_dict().values()
    assert 'PickyPullWorkChain was not submitted' in reason
    assert 'too large for this labeller' in reason


class FinickyTrainWorkChain(ToyTrainWorkChain):
    """Refuses a second set of labels, which nobody could know when the campaign was submitted."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        shared = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: (
            shared(inputs, ports) or ('more than one set is too much' if len(inputs.get('labels', {})) > 1 else None)
        )


class LosingTrainWorkChain(ToyTrainWorkChain):
    """Says that it will know what the walkers have, and learns a potential of a longer range than it says."""

    @classmethod
    def forecast(cls, inputs, symbols):
        return super().forecast(inputs, symbols).__class__(['Al', 'Cu'], inputs['basis'].cutoff)


@pytest.fixture
def build(entry_points, engine_code, localhost):
    entry_points.add(ToyLabelWorkChain, 'aiida.workflows:oodal.label.toy')
    entry_points.add(FinickyTrainWorkChain, 'aiida.workflows:oodal.train.finicky')
    entry_points.add(LosingTrainWorkChain, 'aiida.workflows:oodal.train.losing')
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)])
    hot = {'structure': crystal, 'settings': {'temperature': 3000, 'steps': 400}}

    def make(trainer, walkers=None, stiffness=0.5):
        return CampaignWorkChain.get_builder_from_protocol(
            code=engine_code,
            computer=localhost,
            labeller='oodal.label.toy',
            trainer=trainer,
            protocol='quick',
            initial_structures=crystal,
            walkers={'hot': hot, **(walkers or {})},
            overrides={
                'label': {'stiffness': stiffness},
                'max_rounds': 2,
                'thresholds': {'gamma_ceiling': 1e4},
            },
        )

    return make


def test_a_training_that_is_refused_leaves_labels_and_potential(build):
    outputs, node = run_get_node(build('oodal.train.finicky'))
    assert node.exit_status == 210, node.exit_message
    assert 'FinickyTrainWorkChain was not submitted' in node.exit_message
    assert 'more than one set is too much' in node.exit_message
    assert set(outputs['labels']) == {'start', 'round_1'}
    assert outputs['potential'].elements == ['Al']
    assert all(child.is_terminated for child in node.called_descendants)


def test_a_walker_that_what_was_learned_does_not_know_leaves_no_other_one_running(build):
    alloy = bulk('Al', a=4.0, cubic=True).repeat(2)
    alloy.symbols[0] = 'Cu'
    walkers = {'other': {'structure': StructureSetData([alloy]), 'settings': {'temperature': 300, 'steps': 10}}}
    outputs, node = run_get_node(build('oodal.train.losing', walkers, stiffness=0.75))
    assert node.exit_status == 210, node.exit_message
    assert 'ExploreWorkChain was not submitted' in node.exit_message
    assert 'the structure has Cu' in node.exit_message
    assert set(outputs['labels']) == {'start'}
    assert 'potential' in outputs
    assert 'ExploreWorkChain' not in {child.process_label for child in node.called}
