"""Submitting from launch scripts that can be run twice."""

from __future__ import annotations

import runpy
import shlex
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.exceptions import InvalidOperation
from aiida.engine import Process, ProcessBuilder, submit
from aiida.engine.daemon.client import get_daemon_client
from aiida.engine.processes.functions import ProcessFunctionType

from aiida_oodal.calculations.codes.lammps_build import NATIVE_STYLE
from aiida_oodal.calculations.codes.lammps_code import is_engine, require_pair_style
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.pair_lines import pair_styles

from .codes import find_calculator_fault
from .daemon import require_task, start_daemon, stop_daemon
from .differences import find_differences, flatten_inputs, input_nodes
from .follow import follow
from .processes import count_active

#: How many differences a message names.
_NAMED = 5
#: What is asked before a process is submitted.
_CHECK: ContextVar[Callable[[ProcessBuilder], None] | None] = ContextVar('_CHECK', default=None)


class NoDaemonError(OodalError):
    """A daemon is needed, and none is running."""

    def __init__(self, what: str) -> None:
        super().__init__(f'{what}: no daemon is running. Start it with `verdi daemon start 2`, then run this again')


def submit_once(label: str, build: Callable[[], ProcessBuilder]) -> orm.ProcessNode:
    """Submit a process, or return the one that an earlier call submitted under the same label with the same inputs.

    Inputs are the same if their content is; options of jobs, computers and the version of the engine are no inputs in
    this sense. A process that was killed or excepted is not counted: it is submitted anew.

    :param label: label of the process; there is one process for each label.
    :param build: makes the filled builder. Calcfunctions in it should go through :func:`run_once`.
    :raises OodalError: if the process of this label has other inputs, saying which; if a computer is not configured; if
        a code cannot run what it is given; or if jobs do not find the ASE calculator that labels.
    :raises NoDaemonError: if there is something to submit and no daemon to submit it to.
    """
    builder = build()
    inputs = flatten_inputs(builder)
    filters = {'label': label, 'attributes.process_state': {'!in': ['killed', 'excepted']}}
    query = orm.QueryBuilder().append(orm.ProcessNode, filters=filters, tag='process')
    existing = query.order_by({'process': {'ctime': 'desc'}}).all(flat=True)
    differences = [find_differences(input_nodes(process), inputs) for process in existing]
    for process, found in zip(existing, differences, strict=True):
        if not found:
            return process
    if existing:
        require_valid(builder.process_class, builder._inputs(prune=True))  # a name that is misspelt is no other input
        raise OodalError(_describe_other(label, existing[0], differences[0]))
    require_places(builder)
    builder.metadata.label = label
    return submit_process(builder)


@contextmanager
def before_submission(check: Callable[[ProcessBuilder], None]) -> Iterator[None]:
    """Let every process be checked before it is submitted; what the check raises keeps it from that."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def require_valid(process: type[Process], inputs: Mapping[str, Any]) -> None:
    """Check inputs as a submission does, and submit nothing.

    :raises OodalError: naming the input and what is wrong with it.
    """
    ports = process.spec().inputs
    if error := ports.validate(ports.pre_process(ports.serialize(inputs))):
        where = '' if error.port == 'inputs' else f'{error.port}: '  # that of all inputs says itself what it is about
        raise OodalError(f'{where}{error.message}')


def submit_process(builder: ProcessBuilder) -> orm.ProcessNode:
    """Submit a process.

    :raises NoDaemonError: if there is no daemon to submit it to.
    """
    if check := _CHECK.get():
        check(builder)
    try:
        process = submit(builder)
    except InvalidOperation as error:
        # AiiDA's own message recommends to run it in this shell, where it would end with the shell.
        if get_daemon_client().is_daemon_running:
            raise OodalError(str(error)) from error
        raise NoDaemonError(f'{builder.process_class.__name__} was not submitted') from error
    require_task(process)
    return process


def run_once(function: ProcessFunctionType[Any, Any, Any], **inputs: orm.Data) -> Any:
    """Run a calcfunction, or return the result that it gave earlier of inputs of the same content.

    :returns: what the calcfunction returns: a node, or nodes by name.
    :raises OodalError: if it refused its inputs.
    """
    name = function.process_class.build_process_type()
    filters = {'process_type': name, 'attributes.exit_status': 0}
    query = orm.QueryBuilder().append(orm.CalcFunctionNode, filters=filters, tag='process')
    for process in query.order_by({'process': {'ctime': 'asc'}}).all(flat=True):
        if not find_differences(input_nodes(process), inputs):
            results = {name: process.outputs[name] for name in process.outputs}
            return results.get('result', results)
    made, process = function.run_get_node(**inputs)
    if not process.is_finished_ok:
        raise OodalError(f'{process.process_label}<{process.pk}>: {process.exit_message}')
    return made


def launch_script(script: Path, variable: str, workers: int, say: Callable[[str], None]) -> orm.ProcessNode:
    """Run a launch script and return the process that it leaves in a variable; start the daemon if there is work to do.

    :param workers: how many the daemon is started with.
    :param say: told if an earlier run is taken up again.
    :raises OodalError: if the script leaves no process there.
    """
    if count_active():
        say('An earlier run was interrupted: going on from its last step')
        start_daemon(workers, repair=True)
    with ThreadPoolExecutor(1) as aside:
        # A new profile has work to do for certain: its daemon starts while the script is read, which takes as long.
        is_new = orm.QueryBuilder().append(orm.ProcessNode).count() == 0
        starting = aside.submit(start_daemon, workers, repair=False) if is_new else None
        try:
            values = runpy.run_path(str(script))
        except (InvalidOperation, NoDaemonError):
            # There is something to submit, and no daemon to submit it to.
            if starting is None:
                start_daemon(workers, repair=False)
            else:
                starting.result()
            values = runpy.run_path(str(script))
        except Exception:
            if starting is not None:  # nobody needs it
                starting.result()
                stop_daemon()
            raise
    process = values.get(variable)
    if not isinstance(process, orm.ProcessNode):
        raise OodalError(
            f'{script} must leave the process that it submits in the variable `{variable}`, as submit_once does'
        )
    return process


def wait_for(process: orm.ProcessNode, poll_seconds: float = 0.5) -> orm.ProcessNode:
    """Return a process once the daemon has brought it to its end.

    :raises OodalError: if it did not succeed, with its exit message, or if there is no daemon to bring it anywhere.
    """
    for _ in follow(process, poll_seconds):
        require_daemon(process)
    if not process.is_finished_ok:
        raise OodalError(
            f'{process.process_label}<{process.pk}> did not succeed: '
            f'{process.exit_message or process.process_state.value} See `verdi process report {process.pk}`.'
        )
    return process


def require_daemon(process: orm.ProcessNode) -> None:
    """Refuse to wait for a process that has not ended if no daemon is there to bring it to its end.

    :raises NoDaemonError: naming the process.
    """
    if not process.is_terminated and not get_daemon_client().is_daemon_running:
        raise NoDaemonError(f'{process.process_label}<{process.pk}> has not ended')


def require_places(builder: ProcessBuilder) -> None:
    """Refuse computers and codes that cannot run the jobs of a process.

    :raises OodalError: naming what it is, what it lacks and the way out.
    """
    check_computers(builder)
    check_codes(builder)
    check_calculators(builder)


def check_computers(builder: ProcessBuilder) -> None:
    """Refuse computers on which no job can run because nobody has configured them, such as those of an archive.

    :raises OodalError: naming the computer and the way out.
    """
    for computer in _find_computers(builder._inputs(prune=True)):
        if not computer.is_configured:
            raise OodalError(
                f'computer {computer.label!r} is not configured, as after the import of an archive, so that no job can '
                f'run there: `verdi computer configure {computer.transport_type} {shlex.quote(computer.label)}`'
            )


def _find_computers(inputs: Mapping[str, Any]) -> Iterator[orm.Computer]:
    """Yield the computers of all jobs and codes."""
    for value in inputs.values():
        if isinstance(value, Mapping):
            yield from _find_computers(value)
        elif isinstance(value, orm.Computer):
            yield value
        elif isinstance(value, orm.AbstractCode) and value.computer is not None:
            yield value.computer


def check_codes(builder: ProcessBuilder) -> None:
    """Refuse a LAMMPS that lacks a pair style of the inputs; LAMMPS is asked if its build is not known yet.

    :raises OodalError: naming the code, what it lacks and the way out.
    """
    name = builder.process_class.__name__
    for namespace in _find_md(builder._inputs(prune=True), is_md=name == 'MdCalculation'):
        code = namespace.get('code')
        if code is None or is_engine(code):
            continue
        lines = namespace.get('pair', {}).get('lines')
        for style in [NATIVE_STYLE] if lines is None else pair_styles(list(lines)):
            require_pair_style(code, style)


def check_calculators(builder: ProcessBuilder) -> None:
    """Refuse an ASE calculator of another package that jobs do not find where they run.

    A computer that does not answer is no reason: AiiDA waits for it.

    :raises OodalError: naming the calculator, the computer and the way out.
    """
    found = {(computer.uuid, name): computer for computer, name in _find_calculators(builder._inputs(prune=True))}
    for (_, name), computer in found.items():
        fault = None
        with suppress(OodalError):
            fault = find_calculator_fault(computer, name)
        if fault is not None:
            raise OodalError(f"{fault}. Install it there (TBLite: pip install 'aiida-oodal[xtb]'), or correct its name")


def _find_calculators(inputs: Mapping[str, Any]) -> Iterator[tuple[orm.Computer, str]]:
    """Yield the computers of labelling jobs, and the calculators that are not ASE's own."""
    calculator = inputs.get('calculator')
    computer = inputs.get('job', inputs).get('metadata', {}).get('computer')
    if isinstance(calculator, orm.Dict) and computer is not None and ':' in (name := calculator['calculator']):
        yield computer, name
    for value in inputs.values():
        if isinstance(value, Mapping):
            yield from _find_calculators(value)


def _find_md(inputs: dict[str, Any], *, is_md: bool) -> Iterator[dict[str, Any]]:
    """Yield the inputs of every MD run among the inputs of a process: WorkChains have them in a namespace ``md``."""
    if is_md:
        yield inputs
    for name, value in inputs.items():
        if isinstance(value, dict) and name != 'metadata':
            yield from _find_md(value, is_md=name == 'md')


def _describe_other(label: str, process: orm.ProcessNode, differences: list[str]) -> str:
    """Return a message that the label belongs to a process with other inputs, and how to start a new one."""
    more = f'; and {len(differences) - _NAMED} more' if len(differences) > _NAMED else ''
    return (
        f'{process.process_label}<{process.pk}> has the label {label!r} already and was given other inputs: '
        f'{"; ".join(differences[:_NAMED])}{more}. To start anew, give this one another label, or that one: '
        f"`verdi node label --force --label '{label} ({process.pk})' {process.pk}`"
    )
