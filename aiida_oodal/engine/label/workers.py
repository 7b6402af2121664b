"""Structures labelled by several processes at a time; one that a structure kills costs this structure only."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_oodal.engine.errors import OodalError

from .calculators import ProgramMissingError, is_reused, label_structure, make_calculator

#: The parent has neither threads nor torch: a copy of it is a worker at once.
_CONTEXT = multiprocessing.get_context('fork')


@dataclass(frozen=True)
class Result:
    """What became of one structure.

    :param index: its position.
    :param atoms: with its labels; None if it has none.
    :param message: why it has none.
    :param seconds: that it took, making its calculator included.
    """

    index: int
    atoms: Atoms | None
    message: str
    seconds: float


def label_all(
    structures: Sequence[Atoms],
    spec: Mapping[str, Any],
    *,
    files: Mapping[str, Path] | None = None,
    folder: Path,
    workers: int = 1,
) -> Iterator[Result]:
    """Label structures in the order in which workers finish them.

    Labels do not depend on the number of workers: see :func:`.is_reused`. Each worker has a folder of its own, for
    calculators that write files.

    :param spec: of the calculator, see :func:`.make_calculator`.
    :param folder: where the folders of the workers are made.
    :param workers: how many structures are labelled at a time.
    :raises OodalError: if the calculator cannot be made, or has no program.
    """
    todo = deque(range(len(structures)))
    crew: dict[Connection, _Worker] = {}

    def hire(number: int) -> None:
        worker = _Worker(spec, files or {}, folder / f'worker_{number}', number, list(crew))
        crew[worker.connection] = worker

    try:
        for number in range(min(workers, len(structures))):
            hire(number)
        while crew:
            for connection in wait(list(crew)):
                worker = crew.pop(connection)  # type: ignore[call-overload]
                answer = worker.receive(structures)
                if worker.is_alive and todo:
                    worker.send(todo.popleft(), structures)
                    crew[worker.connection] = worker
                else:
                    worker.stop()
                    if todo:
                        hire(worker.number)
                if answer is not None:
                    yield answer
    finally:
        for worker in crew.values():
            worker.stop()


class _Worker:
    """A process that says None when it is ready, then a :class:`Result` for each structure that it is sent.

    :param others: connections that the new process inherits and must not keep open, so that it ends when this process
        is killed.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        files: Mapping[str, Path],
        folder: Path,
        number: int,
        others: list[Connection],
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.number, self._folder = number, folder
        self.connection, other = _CONTEXT.Pipe()
        arguments = (other, spec, files, folder, [*others, self.connection])
        self._process: BaseProcess = _CONTEXT.Process(target=_work, args=arguments)
        self._process.start()
        other.close()
        self.is_alive = True
        self._index: int | None = None
        self._began = time.monotonic()

    def send(self, index: int, structures: Sequence[Atoms]) -> None:
        """Send a structure."""
        self._index, self._began = index, time.monotonic()
        self.connection.send((index, structures[index]))

    def receive(self, structures: Sequence[Atoms]) -> Result | None:
        """Return what the process found, or that it died; None if it is just ready.

        :raises OodalError: if the calculator cannot be made.
        """
        try:
            answer: Result | OodalError | None = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._describe_death(structures)
        if isinstance(answer, OodalError):
            self.stop()
            raise answer
        return answer

    def stop(self) -> None:
        """End the process and remove its folder if nothing was written there."""
        self.is_alive = False
        self.connection.close()
        self._process.terminate()
        self._process.join()
        with suppress(OSError):
            self._folder.rmdir()

    def _describe_death(self, structures: Sequence[Atoms]) -> Result:
        """Say that the process died at its structure.

        :raises OodalError: if it died before it had one.
        """
        self.is_alive = False
        self._process.join()
        code = self._process.exitcode or 0
        how = f'by signal {-code}' if code < 0 else f'with status {code}'
        if self._index is None:
            self.stop()
            raise OodalError(f'the process that makes the calculator died {how}; the output of the job may say why')
        atoms = structures[self._index]
        elements = ' '.join(sorted(set(atoms.get_chemical_symbols())))
        message = (
            f'the calculator died {how} at structure {self._index} ({len(atoms)} atoms of {elements}): ask for more '
            'memory (`max_memory_kb`) if it had too little, or leave the structure out'
        )
        return Result(self._index, None, message, time.monotonic() - self._began)


def _work(
    connection: Connection,
    spec: Mapping[str, Any],
    files: Mapping[str, Path],
    folder: Path,
    inherited: list[Connection],
) -> None:
    """Label what is sent, until nothing is."""
    for other in inherited:
        other.close()
    os.chdir(folder)
    try:
        calculator = make_calculator(spec, files)
    except OodalError as error:
        connection.send(error)
        return
    connection.send(None)
    fresh = True
    while True:
        try:
            index, atoms = connection.recv()
        except EOFError:
            return
        began = time.monotonic()
        labelled, message = None, ''
        try:
            if not (fresh or is_reused(spec)):
                calculator = make_calculator(spec, files)
            fresh = False
            labelled = label_structure(atoms, calculator, index=index)
        except ProgramMissingError as error:
            connection.send(error)
            return
        except OodalError as error:
            message = str(error)
        connection.send(Result(index, labelled, message, time.monotonic() - began))
