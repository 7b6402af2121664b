"""``aiida-oodal init``: a launch script for a system of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .params import plain_errors


def ask(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Ask for an option that was not given, if there is a terminal to ask at; else take its default."""
    given = context.get_parameter_source(option.name or '') is not click.core.ParameterSource.DEFAULT
    return value if given or not sys.stdin.isatty() else click.prompt((option.name or '').capitalize(), default=value)


@click.command()
@click.argument('folder', type=click.Path(file_okay=False, path_type=Path))
@click.option(
    '--structure',
    'structures',
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help='Structure that walkers begin with, in any format that ASE reads. May repeat.',
)
@click.option(
    '--element',
    'elements',
    multiple=True,
    help='An element whose cubic crystal ASE knows, in place of --structure; beside it may repeat.',
)
@click.option(
    '--labeller',
    default='pw',
    show_default=True,
    callback=ask,
    help='Who labels: emt, xtb (GFN1-xTB), pw (Quantum ESPRESSO), outside (somebody else), or an ASE calculator as '
    'package.module:Class. Asked for at a terminal.',
)
@click.option(
    '--computer',
    default='localhost',
    show_default=True,
    callback=ask,
    help='Where jobs run: an AiiDA computer. Asked for at a terminal.',
)
@click.option(
    '--temperature',
    'temperatures',
    type=click.FloatRange(1, 1e5),
    multiple=True,
    default=(600, 1200),
    show_default=True,
    help='A walker of each structure is heated from 300 K to each of these, kelvin. May repeat.',
)
@click.option(
    '--labelled',
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Labelled structures of yours, in place of new ones: extended XYZ with REF_energy, REF_forces and, '
    'for trainers that learn it, REF_stress. Walkers run at constant pressure: give several densities.',
)
@click.option(
    '--validation',
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='More of them, which are never learned: by these potentials are judged.',
)
@click.option('--protocol', default='balanced', show_default=True, help='quick, balanced or careful.')
def init(
    folder: Path,
    structures: tuple[Path, ...],
    elements: tuple[str, ...],
    labeller: str,
    computer: str,
    temperatures: tuple[float, ...],
    labelled: Path | None,
    validation: Path | None,
    protocol: str,
) -> None:
    """Write a launch script for a campaign of your own into FOLDER, for you to read and to change.

    \b
    Copper oxide labelled by Quantum ESPRESSO on a cluster
      aiida-oodal init cuo --structure CuO.cif --labeller pw --computer a100-slurm --temperature 900
    An alloy and its elements:
      aiida-oodal init agpd --structure AgPd.cif --element Ag --element Pd --labeller pw --temperature 1500
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.operations.campaign.begin import read_starts, write_script

    with plain_errors():
        script = write_script(
            folder,
            read_starts(structures, elements),
            name=folder.resolve().name,
            computer=computer,
            labeller=labeller,
            temperatures=temperatures,
            protocol=protocol,
            labelled=labelled,
            validation=validation,
        )
    click.echo(f'Wrote {script}: labels by {labeller}, jobs on {computer}. Read it and change it, then:')
    click.echo(f'  verdi daemon start 2\n  aiida-oodal campaign launch {script}')
