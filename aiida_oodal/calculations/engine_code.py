"""The code of the engine as a node: the very code that made a result is part of its provenance."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from aiida import orm

from aiida_oodal import __version__

_PACKAGE = Path(__file__).parents[1]
#: The executable inside the code; ``python3`` is the one of the job's environment.
EXECUTABLE = 'oodal-engine'
_LAUNCHER = """#!/usr/bin/env python3
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from aiida_oodal.engine.__main__ import main

sys.exit(main())
"""


def engine_files() -> dict[str, bytes]:
    """Return what travels with a job: relative path -> content."""
    sources = [_PACKAGE / '__init__.py', *sorted((_PACKAGE / 'engine').rglob('*.py'))]
    files = {str(Path(_PACKAGE.name) / path.relative_to(_PACKAGE)): path.read_bytes() for path in sources}
    return {EXECUTABLE: _LAUNCHER.encode(), **files}


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
        for name, content in engine_files().items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        code = orm.PortableCode(label=label, filepath_executable=EXECUTABLE, filepath_files=folder)
        code.description = 'aiida_oodal.engine; needs python3 with numpy, ase and what the command uses on PATH'
        code.store()
    return code
