"""A user's own program labels: one process for each structure, a few at once."""

import sys
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.lj import LennardJones

from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.workchains.label.shell import ShellLabelWorkChain

PROGRAM = Path(__file__).with_name('lennard_jones.py')
TEMPLATE = """{{ cell[0][0] }}
{{ n_atoms }}
{% for i in range(n_atoms) %}
{{ symbols[i] }} {{ positions[i] | join(' ') }}
{% endfor %}
"""
SETTINGS = {
    'template': TEMPLATE,
    'arguments': '{program} {input}',
    'output_file': 'label.json',
}


def crystals(*seeds, symbol='Cu'):
    nodes = {}
    for seed in seeds:
        atoms = bulk(symbol, a=3.6, cubic=True).repeat(3)
        atoms.rattle(0.1, seed=seed)
        nodes[f'c{seed}'] = orm.StructureData(ase=atoms)
    return nodes


@pytest.fixture
def labeller(engine_code, localhost):
    def make(clusters, settings=None, options=None, **overrides):
        builder = ShellLabelWorkChain.get_builder_from_protocol(
            code=engine_code,
            computer=localhost,
            options=options,
            overrides={
                'command': sys.executable,
                'settings': {**SETTINGS, **(settings or {})},
                'files': {'program': orm.SinglefileData(PROGRAM)},
                **overrides,
            },
        )
        builder.clusters = clusters
        return builder

    return make


def singles_of(node):
    return [child for child in node.called if child.process_label == 'ShellSingleWorkChain']


def test_the_labels_are_those_of_the_program(labeller):
    clusters = crystals(500, 501, 502)
    outputs, node = run_get_node(labeller(clusters, batch_size=2))
    assert node.is_finished_ok, node.exit_message
    labels = {atoms.info['queue_key']: atoms for atoms in outputs['labels']}
    entries = find_entries(campaign=node.uuid)
    assert len(entries) == len(labels) == 3
    for entry in entries:
        atoms = entry.load_node().get_ase()
        atoms.calc = LennardJones(sigma=2.2, epsilon=0.2, rc=4.0)
        labelled = labels[entry.key]
        assert labelled.info['REF_energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(labelled.arrays['REF_forces'], atoms.get_forces(), atol=1e-8)
        assert labelled.info['level_of_theory'] == entry.level
        # the whole way from the structure to its label is there
        single = orm.load_node(entry.process)
        assert [call.process_label.split('<')[0] for call in single.called] == [
            'write_input',
            'ShellJob',
            'read_label_file',
        ]
        assert single.inputs.structure.uuid == entry.node
        job = single.called[1]
        assert job.inputs.nodes.input.creator.process_label == 'write_input'
        assert job.exit_status == 410  # it wrote to stderr, and well
        assert entry.core_hours is not None
    # the program ran once for each
    assert len(singles_of(node)) == 3


def test_one_that_fails_fails_alone_and_says_why_in_the_words_of_the_program(labeller):
    outputs, node = run_get_node(labeller(crystals(510) | {'gold': crystals(511, symbol='Au')['c511']}))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 1
    assert 'this program does not know gold' in outputs['failures']['gold']


def test_a_program_that_writes_nothing_has_no_label(labeller):
    _, node = run_get_node(labeller(crystals(515), {'output_file': 'other.json'}))
    assert node.exit_status == 401
    assert 'the program ended well and did not write other.json' in node.exit_message


def test_the_failure_budget_ends_the_trying_and_keeps_the_labels(labeller):
    clusters = crystals(*range(520, 524), symbol='Au')
    outputs, node = run_get_node(labeller(clusters, batch_size=1, max_failures=2))
    assert node.exit_status == 401  # not one label
    entries = find_entries(campaign=node.uuid)
    counts = {status: sum(entry.status is status for entry in entries) for status in QueueStatus}
    assert (counts[QueueStatus.FAILED], counts[QueueStatus.PENDING_DFT]) == (2, 2)
    assert len(singles_of(node)) == 2
    clusters |= crystals(529)  # one that works, and is the first
    outputs, node = run_get_node(labeller(clusters, batch_size=5, max_failures=1))
    assert outputs['labels'].n_structures == 1


def test_a_structure_is_tried_again_as_often_as_is_said(labeller, tmp_path):
    _, node = run_get_node(labeller(crystals(530), max_attempts=2, command=str(make_flaky(tmp_path))))
    assert node.is_finished_ok, node.exit_message
    (entry,) = find_entries(campaign=node.uuid)
    assert (entry.status, entry.attempts) == (QueueStatus.LABELLED, 2)
    first, second = singles_of(node)
    assert 'no licence' in first.exit_message
    assert second.is_finished_ok


def make_flaky(folder):
    """Return a program that finds no licence the first time."""
    path = folder / 'flaky.sh'
    path.write_text(
        f'#!/bin/bash\nif mkdir {folder}/once 2>/dev/null; then echo "no licence" >&2; exit 3; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return path


def test_a_job_that_the_machine_ended_is_sent_again(labeller, tmp_path):
    killed_once = f'if mkdir {tmp_path}/killed 2>/dev/null; then kill -9 $$; fi'
    _, node = run_get_node(labeller(crystals(540), options={'prepend_text': killed_once}))
    assert node.is_finished_ok, node.exit_message
    (single,) = singles_of(node)
    jobs = [child for child in single.called if isinstance(child, orm.CalcJobNode)]
    assert [job.exit_status for job in jobs] == [302, 410]
    (entry,) = find_entries(campaign=node.uuid)
    assert entry.attempts == 1


def test_other_input_is_another_level_and_equal_words_are_the_same(labeller):
    level = ShellLabelWorkChain.get_level
    first = level(labeller({}))
    assert level(labeller({})).hash == first.hash
    assert level(labeller({}, {'template': TEMPLATE + '# more'})).hash != first.hash
    other = orm.SinglefileData.from_string('print()', filename='other.py')
    assert level(labeller({}, files={'program': other})).hash != first.hash
    named = level(labeller({}, {'level': 'LJ'}))
    assert named.hash == level(labeller({}, {'level': 'LJ', 'template': TEMPLATE + '# more'})).hash
    assert named.text == 'LJ'


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (
            {'settings': {'arguments': '{programme} {input}'}},
            r"'\{programme\}' names no file; there are input, program",
        ),
        ({'settings': {'template': '{{ x }}'}}, "'x' is undefined"),
        ({'settings': {'arguments': '"{input}'}}, 'settings: No closing quotation'),
        ({'files': {'input': 'a file'}}, "files: 'input' is what the input of the structure is called"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_submitted(labeller, overrides, message):
    if 'files' in overrides:
        overrides = {'files': {'input': orm.SinglefileData(PROGRAM)}}
    with pytest.raises(ValueError, match=message):
        run_get_node(labeller(crystals(550), **overrides))


def test_a_command_is_looked_for_on_the_computer(engine_code, localhost):
    for command, message in (
        ('no-such-program', r"computer 'localhost' has no command 'no-such-program'"),
        (None, 'overrides: give `command`, the program that labels'),
    ):
        with pytest.raises(ValueError, match=message):
            ShellLabelWorkChain.get_builder_from_protocol(
                code=engine_code, computer=localhost, overrides={'command': command, 'settings': SETTINGS}
            )
