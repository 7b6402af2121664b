import pytest

from aiida_oodal.calculations.job.options import (
    PROPERTY,
    check_job_options,
    get_job_options,
    parse_partitions,
    parse_walltime,
)

SINFO = """a100|7-00:00:00|1048576|gpu:a100:16(S:0,1),gpu:h200:16
a100|7-00:00:00|512000+|gpu:a100:8
cpu|infinite|256000|(null)
debug|30:00|64000|gpu:2
"""


def test_partitions_are_read_with_all_kinds_of_nodes():
    partitions = parse_partitions(SINFO)
    assert partitions['a100'] == {'walltime_s': 604800, 'memory_mb': 1048576, 'gres': ['gpu:a100', 'gpu:h200']}
    assert partitions['cpu'] == {'walltime_s': None, 'memory_mb': 256000, 'gres': []}
    assert partitions['debug'] == {'walltime_s': 1800, 'memory_mb': 64000, 'gres': ['gpu']}


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [('24:00:00', 86400), ('1-12', 129600), ('90', 5400), ('1:30', 90), ('2-01:02:03', 176523), ('infinite', None)],
)
def test_walltimes_as_slurm_writes_them(text, seconds):
    assert parse_walltime(text) == seconds


@pytest.fixture
def cluster(aiida_profile):
    from aiida.orm import Computer

    computer = Computer(label='cluster', hostname='cluster', transport_type='core.local', scheduler_type='core.slurm')
    options = {'latents': {'queue_name': 'a100', 'max_memory_kb': 62914560}}
    computer.set_property(PROPERTY, {'partitions': parse_partitions(SINFO), 'options': options})
    return computer


def test_defaults_belong_to_a_process(cluster):
    assert get_job_options(cluster, 'latents') == {'queue_name': 'a100', 'max_memory_kb': 62914560}
    assert get_job_options(cluster, 'md') == {}


def test_what_slurm_has_is_accepted(cluster):
    options = {
        'queue_name': 'a100',
        'custom_scheduler_commands': '#SBATCH --gres=gpu:1',
        'max_wallclock_seconds': 604800,
    }
    assert check_job_options(cluster, 'latents', options) is None
    assert (
        check_job_options(cluster, 'md', {'queue_name': 'debug', 'custom_scheduler_commands': '#SBATCH --gres=gpu'})
        is None
    )
    assert check_job_options(cluster, 'md', {}) is None


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'max_wallclock_seconds': -1}, 'max_wallclock_seconds = -1 must be positive'),
        ({'max_memory_kb': 0}, 'max_memory_kb = 0 must be positive'),
        ({'queue_name': 'a10'}, "no partition 'a10'; there are a100, cpu, debug"),
        ({'queue_name': 'cpu', 'max_memory_kb': 300 * 1024**2}, 'asks for 307200 MB'),
        ({'queue_name': 'debug', 'max_wallclock_seconds': 1801}, "over the limit of partition 'debug', 1800 s"),
        ({'queue_name': 'cpu', 'custom_scheduler_commands': '#SBATCH --gres=gpu:a100:1'}, 'have no gpu:a100, but none'),
        (
            {'queue_name': 'a100', 'custom_scheduler_commands': '#SBATCH --gres=gpu:a10:1'},
            'have no gpu:a10, but gpu:a100',
        ),
    ],
)
def test_what_slurm_has_not_is_named(cluster, options, message):
    assert message in check_job_options(cluster, 'md', options)


@pytest.mark.parametrize(
    'options',
    [
        {'queue_name': 'h200'},
        {'custom_scheduler_commands': '#SBATCH --gres=gpu:h200:1'},
        {'custom_scheduler_commands': '#SBATCH -p h200'},
        {'custom_scheduler_commands': '#SBATCH --exclude=a100-01\n#SBATCH --constraint="h200|a100"'},
    ],
)
def test_embedding_jobs_stay_away_from_h200(cluster, options):
    assert '--allow-h200' in check_job_options(cluster, 'latents', options)
    assert '--allow-h200' not in (check_job_options(cluster, 'md', options) or '')
    cluster.set_property(PROPERTY, {'allow_h200': True})
    assert check_job_options(cluster, 'latents', options) is None


def test_embedding_jobs_may_say_that_they_avoid_h200(cluster):
    options = {'queue_name': 'a100', 'custom_scheduler_commands': '#SBATCH --exclude=h200-[01-04]'}
    assert check_job_options(cluster, 'latents', options) is None
