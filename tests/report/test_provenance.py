"""The graph of a long campaign, made by hand: what is asked of it must not go along every path."""

from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType
from ase.build import bulk

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.report.campaign.provenance import find_first_student

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


def calculate(kind, inputs, **outputs):
    """Store a calculation with its inputs and outputs."""
    node = kind()
    for label, data in inputs.items():
        node.base.links.add_incoming(data, LinkType.INPUT_CALC, label)
    node.store()
    for label, data in outputs.items():
        data.base.links.add_incoming(node, LinkType.CREATE, label)
        data.store()
    return node


def label(number, **inputs):
    """Return labels that a job made."""
    labels = StructureSetData([bulk('Al', a=4.0 + 0.001 * number)])
    calculate(orm.CalcJobNode, inputs, labels=labels)
    return labels


def train(inputs):
    """Return a potential that a job trained."""
    potential = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi')
    calculate(orm.CalcJobNode, inputs, potential=potential, results=orm.Dict())
    return potential


@pytest.fixture(scope='module')
def rounds(aiida_profile):
    """Return labels and potentials of 25 rounds: each potential led to the next labels, and was learned from again."""
    labels, potentials = [label(0)], []
    potentials.append(train({'training__round_0': labels[0]}))
    for number in range(1, 25):
        leading = {'potential': potentials[-1]}
        labels.append(label(number, **leading))
        learned = {'training__round_0': labels[0], 'training__new': labels[-1]}
        potentials.append(train({**learned, **leading}))
    return labels, potentials


def test_the_first_potential_that_learned_labels_is_found(rounds):
    """Though 2^24 paths lead from the first labels to the last potential."""
    labels, potentials = rounds
    assert [find_first_student(labels[number]) for number in (0, 11, 24)] == [potentials[n] for n in (0, 11, 24)]


def test_it_is_found_through_sets_that_were_put_together(rounds):
    own = label(100)
    assert find_first_student(own) is None
    merged = StructureSetData([bulk('Al', a=4.1)])
    calculate(orm.CalcFunctionNode, {'set_0': own}, result=merged)
    assert find_first_student(own) is None
    potential = train({'training__start': merged})
    train({'training__start': merged})
    assert find_first_student(own) == potential


@pytest.mark.parametrize('name', ['validation', 'anchors__cold'])
def test_nobody_learned_what_a_model_was_only_judged_on(rounds, name):
    own = label(200)
    judged = train({'training__start': label(201), name: own})
    assert find_first_student(own) is None
    leading = label(202, potential=judged)
    assert find_first_student(leading) is None
