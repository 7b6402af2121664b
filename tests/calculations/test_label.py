import hashlib

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.manage import get_manager
from aiida.orm import Dict, SinglefileData, load_node
from ase.build import bulk
from ase.calculators.eam import EAM
from ase.calculators.emt import EMT

from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.calculations.label import LabelCalculation, get_ase_level, hash_file
from aiida_oodal.data import StructureSetData

CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}


def make_structures(*symbols):
    frames = [bulk(symbol, 'fcc', a=4.0, cubic=True) for symbol in symbols]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    return frames


def run(engine_code, localhost, **inputs):
    return run_get_node(LabelCalculation, code=engine_code, metadata={'computer': localhost}, **inputs)


def test_labels_are_those_of_the_calculator(engine_code, localhost):
    frames = make_structures('Al', 'Cu')
    outputs, node = run(engine_code, localhost, structures=StructureSetData(frames), calculator=Dict(CALCULATOR))
    assert node.is_finished_ok, node.exit_message
    for atoms, labelled in zip(frames, outputs['labels'], strict=True):
        atoms.calc = EMT(asap_cutoff=False)
        np.testing.assert_allclose(labelled.arrays['REF_forces'], atoms.get_forces(), atol=1e-10)
        np.testing.assert_allclose(labelled.info['REF_stress'], atoms.get_stress(), atol=1e-10)


def test_what_cannot_be_labelled_does_not_cost_the_others(engine_code, localhost):
    outputs, node = run(
        engine_code,
        localhost,
        structures=StructureSetData(make_structures('Al', 'Pb', 'Cu')),
        calculator=Dict(CALCULATOR),
    )
    assert node.exit_status == 410
    assert '1 of 3 structures could not be labelled' in node.exit_message
    assert 'Pb' in node.exit_message
    assert [atoms.get_chemical_symbols()[0] for atoms in outputs['labels']] == ['Al', 'Cu']


@pytest.mark.parametrize(
    ('calculator', 'message'),
    [
        ({'calculator': 'emtt'}, "calculator 'emtt' cannot be found .* use a name that ASE knows"),
        ({'calculator': 'emt', 'parameters': {'asap_cutof': True}}, "did you mean 'asap_cutoff'"),
        ({'calculator': 'emt', 'params': {}}, 'unknown entries params'),
        ({'parameters': {}}, "'calculator' is needed by name"),
        ({'calculator': 'lj', 'parameters': {'sigma': '{table}'}}, "'{table}' stands for a file, and there is none"),
    ],
)
def test_what_can_be_known_of_a_calculator_is_told_at_submission(engine_code, localhost, calculator, message):
    structures = StructureSetData(make_structures('Al'))
    with pytest.raises(ValueError, match=message):
        run(engine_code, localhost, structures=structures, calculator=Dict(calculator))


def test_what_only_the_job_can_know_it_tells_in_plain_words(engine_code, localhost):
    """Packages and programs of the computer; nothing is labelled before."""
    for calculator, message in (
        ({'calculator': 'oracle.ase:Oracle'}, "'oracle.ase:Oracle' cannot be found (No module named 'oracle')"),
        ({'calculator': 'ase.calculators.lj:LennardJones', 'parameters': {'sigmaa': 1}}, "did you mean 'sigma'"),
        (
            {'calculator': 'espresso', 'parameters': {'pseudopotentials': {}}},
            "'espresso' has no program on this computer",
        ),
    ):
        structures = StructureSetData(make_structures('Al'))
        _, node = run(engine_code, localhost, structures=structures, calculator=Dict(calculator))
        assert node.exit_status == 210
        assert message in node.exit_message


def test_files_are_put_into_the_job_and_belong_to_the_level(engine_code, localhost, tmp_path):
    """A potential of EAM is a file."""
    (tmp_path / 'Al.eam').write_text(make_eam())
    potential = SinglefileData(tmp_path / 'Al.eam').store()
    calculator = Dict({'calculator': 'eam', 'parameters': {'potential': '{potential}'}})
    given = {'structures': StructureSetData(make_structures('Al')), 'calculator': calculator}
    outputs, node = run(engine_code, localhost, **given, files={'potential': potential})
    assert node.is_finished_ok, node.exit_message
    (labelled,) = outputs['labels']
    (atoms,) = make_structures('Al')
    atoms.calc = EAM(potential=str(tmp_path / 'Al.eam'))
    np.testing.assert_allclose(labelled.arrays['REF_forces'], atoms.get_forces(), atol=1e-10)
    level = get_ase_level(calculator.get_dict(), {'potential': potential})
    assert labelled.info['level_of_theory'] == level.hash
    (tmp_path / 'other.eam').write_text(make_eam(strength=2.0))
    other = SinglefileData(tmp_path / 'other.eam')
    assert get_ase_level(calculator.get_dict(), {'potential': other}).hash != level.hash
    with pytest.raises(ValueError, match=r"'table' is not used: write \"\{table\}\""):
        run(engine_code, localhost, **given, files={'potential': potential, 'table': other})


def make_eam(strength=1.0):
    """Return a potential in DYNAMO format: one element, a smooth density and a repulsion."""
    n, dr, drho, cutoff = 500, 0.012, 0.05, 6.0
    r = np.arange(n) * dr
    fade = np.where(r < cutoff, (1 - r / cutoff) ** 3, 0.0)
    embedding = -np.sqrt(np.arange(n) * drho)
    effective_charge = strength * 3.0 * np.exp(-r) * fade
    text = f'a potential\n13 26.98 4.0 FCC\n{n} {drho} {n} {dr} {cutoff}\n'
    for values in (embedding, effective_charge, 5.0 * np.exp(-r) * fade):
        text += '\n'.join(' '.join(f'{value:.12e}' for value in row) for row in values.reshape(-1, 5)) + '\n'
    return text


def test_a_job_of_two_cores_labels_two_at_a_time_and_the_same(engine_code, localhost):
    frames = make_structures('Al', 'Cu', 'Au', 'Ni')
    labels = []
    for cores in (1, 2):
        builder = LabelCalculation.get_builder()
        builder.code, builder.calculator = engine_code, CALCULATOR
        builder.structures = StructureSetData(frames)
        builder.metadata.computer = localhost
        resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': cores}
        builder.metadata.options.resources = resources
        outputs, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        labels.append(outputs['labels'].get_set())
        assert count_core_hours(node) == pytest.approx(outputs['results']['core_seconds'] / 3600)
    np.testing.assert_array_equal(labels[0].arrays['REF_forces'], labels[1].arrays['REF_forces'])
    assert labels[0].info['REF_energy'].tolist() == labels[1].info['REF_energy'].tolist()


def test_there_must_be_something_to_label(engine_code, localhost):
    with pytest.raises(ValueError, match='give either `clusters` or `structures` to label'):
        run(engine_code, localhost, calculator=Dict(CALCULATOR))


def test_a_file_is_the_same_before_and_after_the_storage_was_maintained(tmp_path):
    path = tmp_path / 'parameters'
    path.write_bytes(bytes(range(256)) * 5000)
    node = SinglefileData(path).store()
    loose = hash_file(node)
    get_manager().get_profile_storage().maintain(full=False)
    assert hash_file(load_node(node.pk)) == loose == hashlib.sha256(path.read_bytes()).hexdigest()
