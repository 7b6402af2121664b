"""The SCF of a label: aiida-quantumespresso's own WorkChain, safe from ``kill -9``."""

from __future__ import annotations

from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

from aiida_oodal.workchains.resuming import ResumingRestartWorkChain


class PwScfWorkChain(ResumingRestartWorkChain, PwBaseWorkChain):
    """``PwBaseWorkChain`` whose jobs run once, even if a worker is killed while it submits one."""
