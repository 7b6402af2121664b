"""What pw.x is given, and what is refused before it is."""

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.label.pw import PwAdapter, PwLabelWorkChain


def level_of(builder):
    return PwLabelWorkChain.get_level(builder._inputs(prune=True))


def parameters(**namelists):
    return {'workflow': {'pw': {'parameters': namelists}}}


@pytest.mark.parametrize(
    'overrides',
    [
        parameters(ELECTRONS={'mixing_beta': 0.1, 'electron_maxstep': 7, 'startingwfc': 'random'}),
        parameters(CONTROL={'max_seconds': 100, 'disk_io': 'none', 'verbosity': 'high'}),
        {'workflow': {'pw': {'metadata': {'options': {'max_wallclock_seconds': 5}}}, 'max_iterations': 9}},
        {'workflow': {'pw': {'parallelization': {'npool': 2}}}},
        {'batch_size': 3, 'max_force': 7.0, 'retries': []},
    ],
)
def test_what_changes_no_value_leaves_the_level(pw_builder, overrides):
    assert level_of(pw_builder(**overrides)).hash == level_of(pw_builder()).hash


@pytest.mark.parametrize(
    'overrides',
    [
        parameters(SYSTEM={'ecutwfc': 13.0}),
        parameters(SYSTEM={'ecutrho': 60.0}),
        parameters(SYSTEM={'degauss': 0.06}),
        parameters(SYSTEM={'smearing': 'gaussian'}),
        parameters(SYSTEM={'input_dft': 'pbe'}),
        parameters(SYSTEM={'tot_charge': 1}),
        parameters(SYSTEM={'nspin': 2, 'starting_magnetization': {'Al': 0.1}}),
        parameters(ELECTRONS={'conv_thr': 1e-7}),
        {'workflow': {'kpoints_distance': 0.7}},
        {'workflow': {'meta_parameters': {'conv_thr_per_atom': 1e-7}}},
        {'settings': {'gamma_only': 'none'}},
        {'elements': ['Al', 'Si']},
    ],
)
def test_what_decides_values_makes_another_level(pw_builder, overrides):
    assert level_of(pw_builder(**overrides)).hash != level_of(pw_builder()).hash


def test_the_level_names_every_pseudopotential_by_its_content(pw_builder):
    builder = pw_builder()
    level = level_of(builder)
    assert level.labeller == 'oodal.label.pw'
    assert level.settings['pseudos'] == {kind: node.md5 for kind, node in builder.workflow['pw']['pseudos'].items()}
    assert sorted(level.settings['pseudos']) == ['Al', 'Mg']


def make_inputs(builder, atoms, *, is_cluster=False):
    structure = orm.StructureData(ase=atoms)
    given = builder._inputs(prune=True)
    return PwAdapter().make_inputs(given['workflow'], given['settings'].get_dict(), structure, is_cluster=is_cluster)


def test_magnetic_and_charged_settings_pass_through(pw_builder):
    moments = {'starting_magnetization': {'Al': 0.1, 'Mg': 0.2}, 'nspin': 2, 'tot_charge': 1.0}
    builder = pw_builder(**parameters(SYSTEM=moments))
    pure = make_inputs(builder, bulk('Al'))['pw']['parameters'].get_dict()
    assert pure['SYSTEM'].items() >= {**moments, 'starting_magnetization': {'Al': 0.1}}.items()
    both = make_inputs(builder, bulk('AlMg', 'cesiumchloride', a=3.3))['pw']['parameters'].get_dict()
    assert both['SYSTEM']['starting_magnetization'] == moments['starting_magnetization']
    # a structure of neither has no empty mapping, which pw.x would not read
    only_mg = pw_builder(**parameters(SYSTEM={'starting_magnetization': {'Mg': 0.2}, 'nspin': 2}))
    assert 'starting_magnetization' not in make_inputs(only_mg, bulk('Al'))['pw']['parameters']['SYSTEM']


def test_the_threshold_of_the_scf_grows_with_the_number_of_atoms(pw_builder):
    one, eight = (make_inputs(pw_builder(), bulk('Al', a=4.05).repeat(n)) for n in (1, 2))
    ratio = eight['pw']['parameters']['ELECTRONS']['conv_thr'] / one['pw']['parameters']['ELECTRONS']['conv_thr']
    np.testing.assert_allclose(ratio, 8)
    fixed = make_inputs(pw_builder(**parameters(ELECTRONS={'conv_thr': 1e-7})), bulk('Al').repeat(2))
    assert fixed['pw']['parameters']['ELECTRONS']['conv_thr'] == 1e-7


@pytest.mark.parametrize(
    ('gamma_only', 'is_cluster', 'expected'),
    [('clusters', True, True), ('clusters', False, False), ('all', False, True), ('none', True, False)],
)
def test_who_has_the_gamma_point_only(pw_builder, gamma_only, is_cluster, expected):
    made = make_inputs(pw_builder(settings={'gamma_only': gamma_only}), bulk('Al'), is_cluster=is_cluster)
    assert ('kpoints' in made) is expected
    assert ('kpoints_distance' in made) is not expected
    assert ('settings' in made['pw']) is expected


def test_jobs_that_are_submitted_twice_run_once(pw_builder):
    options = make_inputs(pw_builder(), bulk('Al'))['pw']['metadata']['options']
    assert 'This job was submitted twice' in options['prepend_text']
    assert options['append_text'].endswith('touch script.end')
    assert options['environment_variables'] == {'OMP_NUM_THREADS': '1'}


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'elements': []}, 'give `elements`, all that the structures may have'),
        ({'elements': ['Al', 'Cu']}, "pseudopotential family 'vbc': .*Cu"),
        ({'workflow': {'pseudo_family': 'nowhere'}}, "no one pseudopotential family 'nowhere'.*aiida-pseudo install"),
        ({'protocol': 'hasty'}, "protocol of aiida-quantumespresso: .*'?hasty"),
        ({'batchsize': 3}, "'batchsize' is not an input of protocol 'quick' of label_pw; did you mean 'batch_size'"),
    ],
)
def test_a_builder_that_cannot_be_filled_says_why(pw_builder, overrides, message):
    with pytest.raises(OodalError, match=message):
        pw_builder(**overrides)


def test_cutoffs_are_given_or_recommended(pw_code, localhost, pseudo_family):
    overrides = {'elements': ['Al'], 'workflow': {'pseudo_family': pseudo_family}}
    with pytest.raises(OodalError, match="'vbc' recommends no cutoffs for Al: give `ecutwfc` and `ecutrho`"):
        PwLabelWorkChain.get_builder_from_protocol(code=pw_code, computer=localhost, overrides=overrides)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'settings': {'gamma': 'all'}}, "'gamma' is not a setting; did you mean 'gamma_only'"),
        ({'settings': {'gamma_only': 'some'}}, "gamma_only = 'some'"),
        (parameters(CONTROL={'calculation': 'relax'}), "CONTROL.calculation = 'relax': a label needs 'scf'"),
        (parameters(ELECTRONS={'scf_must_converge': False}), 'what did not converge is no label'),
        ({'retries': [{'pw': {'parameters': {'SYSTEM': {'degauss': 0.1}}}}]}, 'changes the level of theory'),
        ({'retries': [{'pw': {'parameter': {}}}]}, "'parameter' is no Dict among the inputs"),
        ({'elements': ['Mg']}, 'there is no pseudopotential for Al, only for Mg'),
    ],
)
def test_nonsense_is_refused_at_submission(pw_builder, overrides, message):
    builder = pw_builder(**overrides)
    builder.clusters = {'c0': orm.StructureData(ase=bulk('Al'))}
    with pytest.raises(ValueError, match=message):
        run_get_node(builder)


def test_a_batch_of_none_is_refused(pw_builder):
    with pytest.raises(ValueError, match='batch_size = 0 must be at least 1'):
        pw_builder(batch_size=0)


def test_ports_of_the_workflow_are_checked_at_submission(pw_builder):
    builder = pw_builder()
    builder.clusters = {'c0': orm.StructureData(ase=bulk('Al'))}
    inputs = builder._inputs(prune=True)
    inputs['workflow'] = {**inputs['workflow'], 'kpoints_distance': orm.Str('dense')}
    with pytest.raises(ValueError, match=r'workflow: .*kpoints_distance.*Float'):
        run_get_node(PwLabelWorkChain, **inputs)


def test_the_code_must_be_pw_and_on_the_computer_of_the_jobs(
    pw_builder, pw_code, engine_code, localhost, pseudo_family
):
    fill = PwLabelWorkChain.get_builder_from_protocol
    with pytest.raises(OodalError, match=r"and quantumespresso.pw is needed: in a campaign give stages=\{'label'"):
        fill(code=engine_code, computer=localhost, overrides={'elements': ['Al']})
    elsewhere = orm.Computer('far-from-pw', 'host', '', 'core.local', 'core.direct', workdir='/tmp').store()
    with pytest.raises(OodalError, match='code pw@localhost is on localhost, and jobs are to run on far-from-pw'):
        fill(code=pw_code, computer=elsewhere, overrides={'elements': ['Al']})


class Outputs:
    """Outputs of pw.x as its parser leaves them, one thing changed."""

    def __init__(self, **changes):
        self.parameters = {
            'energy_units': 'eV', 'forces_units': 'ev / angstrom', 'stress_units': 'GPascal',
            'convergence_info': {'scf_conv': {'convergence_achieved': True}}, **changes,
        }  # fmt: skip
        self.trajectory = orm.TrajectoryData()
        arrays = {'energy': [-50.0], 'forces': np.zeros((1, 1, 3)), 'atomic_species_name': ['Al']}
        for name, values in arrays.items():
            self.trajectory.set_array(name, np.array(values))

    def read(self):
        return PwAdapter().read({'output_parameters': orm.Dict(self.parameters), 'output_trajectory': self.trajectory})


def test_outputs_that_are_no_label_are_refused():
    assert Outputs().read().energy == -50.0
    with pytest.raises(OodalError, match='did not converge'):
        Outputs(convergence_info={'scf_conv': {'convergence_achieved': False}}).read()
    with pytest.raises(OodalError, match="energy_units is 'Ry' and should be 'eV'"):
        Outputs(energy_units='Ry').read()
    outputs = Outputs()
    outputs.trajectory.delete_array('forces')
    with pytest.raises(OodalError, match='has no forces'):
        outputs.read()
