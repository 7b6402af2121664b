"""What a LAMMPS build can do, read from what ``lmp -h`` prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiida_oodal.engine.errors import OodalError

__all__ = ('NATIVE_STYLE', 'LammpsBuild', 'read_help')

#: The pair style that gives forces and gamma; it comes with the package ML-PACE of LAMMPS 3 Nov 2022 or later.
NATIVE_STYLE = 'pace/extrapolation'

_BANNER = re.compile(r'Large-scale Atomic/Molecular Massively Parallel Simulator - (.+)')
_PACKAGES = re.compile(r'^Installed packages:\s*\n(.*?)^List of ', re.MULTILINE | re.DOTALL)
_PAIR_STYLES = re.compile(r'^\* Pair styles:?\s*\n(.*?)^\* ', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class LammpsBuild:
    """One LAMMPS executable.

    :ivar version: e.g. ``22 Jul 2025 - Update 4``.
    :ivar packages: installed packages, e.g. ``ML-PACE``.
    :ivar pair_styles: pair styles, those with suffixes (``/omp``, ``/kk``) included.
    """

    version: str
    packages: tuple[str, ...]
    pair_styles: tuple[str, ...]

    def lacks(self, pair_style: str) -> str | None:
        """Say that a pair style is missing and what to do; None if it is there."""
        if pair_style in self.pair_styles:
            return None
        if pair_style != NATIVE_STYLE:
            return (
                f'this LAMMPS ({self.version}) has no pair style {pair_style!r}: correct its name, or build LAMMPS '
                f'with the package that has it (installed: {", ".join(self.packages)})'
            )
        package = 'ML-PACE is there, but too old' if 'ML-PACE' in self.packages else 'it was built without ML-PACE'
        return (
            f'this LAMMPS ({self.version}) has no pair style {pair_style!r} ({package}). Build LAMMPS of December 2023 '
            'or later with `cmake -DPKG_ML-PACE=yes`, or give the code of the engine, which evaluates the potential '
            'by pyace: `aiida_oodal.calculations.codes.get_engine_code()`'
        )


def read_help(text: str) -> LammpsBuild:
    """Read what ``lmp -h`` prints.

    :raises OodalError: if this is not the help of a LAMMPS executable.
    """
    version, packages, pair_styles = (pattern.search(text) for pattern in (_BANNER, _PACKAGES, _PAIR_STYLES))
    if version is None or pair_styles is None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raise OodalError(
            f'this is not what LAMMPS prints for `-h`: it begins with {lines[0][:80]!r}'
            if lines
            else 'LAMMPS printed nothing for `-h`'
        )
    return LammpsBuild(
        version=version[1].strip(),
        packages=tuple(packages[1].split()) if packages else (),
        pair_styles=tuple(pair_styles[1].split()),
    )
