"""The code of the engine as a node: the very code that made a result is part of its provenance."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from aiida import orm

from aiida_oodal import __version__
from aiida_oodal.engine import JOB_FORMAT

from .import_closure import find_closure

_PACKAGE = Path(__file__).parents[2]
#: The executable that is the code; the ``python3`` that runs it is the one of the job's environment.
EXECUTABLE = 'oodal-engine'
_MAIN = b'from aiida_oodal.engine.__main__ import run\n\nrun()\n'
#: Attribute of the code: the format of the job files that it reads.
_JOB_FORMAT = 'job_format'


@cache
def engine_files(package: Path = _PACKAGE) -> dict[str, bytes]:
    """Return what travels with a job: the engine's ``__main__`` and all that its commands import.

    A process reads them once: it goes on with the engine that it began with.

    :param package: folder of the package.
    :return: relative path -> content.
    """
    paths = find_closure(package, f'{package.name}.engine.__main__')
    return {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in paths}


def pack(files: Mapping[str, bytes]) -> bytes:
    """Pack files into one that Python runs (zipapp, PEP 441); the same files give the same bytes.

    One file, because AiiDA opens, hashes and copies every file of a code for every job (``benchmarks/throughput.py``).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in sorted({'__main__.py': _MAIN, **files}.items()):
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return b'#!/usr/bin/env python3\n' + buffer.getvalue()


@cache
def engine_label(package: Path = _PACKAGE) -> str:
    """Return the label of the code of the engine as it is now: its version, and a hash of the files that travel."""
    digest = hashlib.sha256()
    for name, content in sorted(engine_files(package).items()):
        digest.update(name.encode() + b'\0' + content + b'\0')
    return f'oodal-engine-{__version__}-{digest.hexdigest()[:8]}'


def find_engine_code() -> orm.PortableCode | None:
    """Return the code of the engine as it is now, None if the profile does not have it yet."""
    return orm.QueryBuilder().append(orm.PortableCode, filters={'label': engine_label()}).first(flat=True)


def get_engine_code() -> orm.PortableCode:
    """Return the code of the engine as it is now, made and stored if the profile does not have it yet."""
    existing = find_engine_code()
    if existing is not None:
        return existing
    with TemporaryDirectory() as folder:
        (Path(folder) / EXECUTABLE).write_bytes(pack(engine_files()))
        code = orm.PortableCode(label=engine_label(), filepath_executable=EXECUTABLE, filepath_files=folder)
        code.description = 'aiida_oodal.engine; needs python3 with numpy, ase and what the command uses on PATH'
        code.base.attributes.set(_JOB_FORMAT, JOB_FORMAT)
        code.store()
    return code


def read_job_format(code: orm.AbstractCode) -> int:
    """Return the format of the job files that a code of the engine reads, see :data:`aiida_oodal.engine.JOB_FORMAT`."""
    return int(code.base.attributes.get(_JOB_FORMAT, 0))
