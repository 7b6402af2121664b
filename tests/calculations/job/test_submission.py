"""What ``sbatch`` said: captured from 22.05 with ``tests/slurm``, or of Slurm's own list of errors."""

import pytest

from aiida_oodal.calculations.job.submission import find_refusal

ERROR = 'Error during submission, retval=1\nstdout=\nstderr={}\n'


@pytest.mark.parametrize(
    'said',
    [
        'sbatch: error: Batch job submission failed: Invalid feature specification',
        'sbatch: error: Batch job submission failed: Invalid qos specification',
        'sbatch: error: Batch job submission failed: Requested node configuration is not available',
        'sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)',
        'sbatch: error: Batch job submission failed: More processors requested than permitted',
        "sbatch: error: Batch job submission failed: User's group not permitted to use this partition",
        "sbatch: unrecognized option '--exclusiv'",
    ],
)
def test_what_is_wrong_stays_wrong(said):
    assert find_refusal(ERROR.format(said)) == said
    assert find_refusal(ERROR.format(f'sbatch: your project has used 80 %\n{said}')) == said


@pytest.mark.parametrize(
    'said',
    [
        'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)',
        'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation',
        'sbatch: error: Batch job submission failed: Invalid authentication credential',
        'sbatch: error: Batch job submission failed: Invalid protocol version',
        'sbatch: error: Batch job submission failed: Access/permission denied',
        'sbatch: error: Batch job submission failed: Requested partition configuration not available now',
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
        'and/or time limits)',
        'bash: sbatch: command not found',
    ],
)
def test_what_may_pass_is_waited_for(said):
    assert find_refusal(ERROR.format(said)) is None
