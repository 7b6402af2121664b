"""The code of the engine as a node: the very code that made a result is part of its provenance."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from aiida import orm

from aiida_oodal import __version__

_PACKAGE = Path(__file__).parents[1]
#: The executable that is the code; the ``python3`` that runs it is the one of the job's environment.
EXECUTABLE = 'oodal-engine'
_MAIN = b'import sys\n\nfrom aiida_oodal.engine.__main__ import main\n\nsys.exit(main())\n'


def engine_files() -> dict[str, bytes]:
    """Return what travels with a job: relative path -> content."""
    sources = [_PACKAGE / '__init__.py', *sorted((_PACKAGE / 'engine').rglob('*.py'))]
    return {str(Path(_PACKAGE.name) / path.relative_to(_PACKAGE)): path.read_bytes() for path in sources}


def pack(files: Mapping[str, bytes]) -> bytes:
    """Pack files into one that Python runs (zipapp, PEP 441); the same files give the same bytes.

    One file, because AiiDA opens, hashes and copies every file of a code for every job (``benchmarks/throughput.py``).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in sorted({'__main__.py': _MAIN, **files}.items()):
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return b'#!/usr/bin/env python3\n' + buffer.getvalue()


def engine_label() -> str:
    """Return the label of the code made from the engine as it is now: its version and a hash of its content."""
    digest = hashlib.sha256()
    for name, content in sorted(engine_files().items()):
        digest.update(name.encode() + b'\0' + content + b'\0')
    return f'oodal-engine-{__version__}-{digest.hexdigest()[:8]}'


def get_engine_code() -> orm.PortableCode:
    """Return the code of the engine as it is now, made and stored if the profile does not have it yet."""
    label = engine_label()
    existing = orm.QueryBuilder().append(orm.PortableCode, filters={'label': label}).first(flat=True)
    if existing is not None:
        return existing
    with TemporaryDirectory() as folder:
        (Path(folder) / EXECUTABLE).write_bytes(pack(engine_files()))
        code = orm.PortableCode(label=label, filepath_executable=EXECUTABLE, filepath_files=folder)
        code.description = 'aiida_oodal.engine; needs python3 with numpy, ase and what the command uses on PATH'
        code.store()
    return code
