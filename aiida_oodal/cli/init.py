"""``aiida-oodal init``: a launch script for a system of the user's own."""

from __future__ import annotations

from pathlib import Path

import click

from .params import plain_errors


@click.command()
@click.argument('folder', type=click.Path(file_okay=False, path_type=Path))
@click.option(
    '--structure',
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Structure that walkers begin with, in any format that ASE reads.',
)
@click.option(
    '--element', 'elements', multiple=True, help='In place of --structure: an element whose crystal ASE knows.'
)
@click.option(
    '--labeller',
    prompt='Labeller (emt, xtb, pw, outside, or an ASE calculator as package.module:Class)',
    default='pw',
    show_default=True,
    help='Who labels: emt, xtb (GFN1-xTB), pw (Quantum ESPRESSO), outside (somebody else), or an ASE calculator as '
    'package.module:Class.',
)
@click.option(
    '--computer', prompt='Computer', default='localhost', show_default=True, help='Where jobs run: an AiiDA computer.'
)
@click.option(
    '--temperature',
    'temperatures',
    type=click.FloatRange(1, 1e5),
    multiple=True,
    default=(600, 1200),
    show_default=True,
    help='A walker is heated from 300 K to each of these, kelvin. May repeat.',
)
@click.option(
    '--labelled',
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Labelled structures of yours, in place of new ones: extended XYZ with REF_energy, REF_forces and, as walkers '
    'run at constant pressure, REF_stress.',
)
@click.option('--protocol', default='balanced', show_default=True, help='quick, balanced or careful.')
def init(
    folder: Path,
    structure: Path | None,
    elements: tuple[str, ...],
    labeller: str,
    computer: str,
    temperatures: tuple[float, ...],
    labelled: Path | None,
    protocol: str,
) -> None:
    """Write a launch script for a campaign of your own into FOLDER, for you to read and to change.

    \b
    Example: copper oxide labelled by Quantum ESPRESSO on a cluster
      aiida-oodal init cuo --structure CuO.cif --labeller pw --computer a100-slurm --temperature 900
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.operations.campaign.begin import read_start, write_script

    with plain_errors():
        script = write_script(
            folder,
            read_start(structure, elements),
            name=folder.resolve().name,
            computer=computer,
            labeller=labeller,
            temperatures=temperatures,
            protocol=protocol,
            labelled=labelled,
        )
    click.echo(f'Wrote {script}. Read it and change it, then:')
    click.echo(f'  verdi daemon start 2\n  aiida-oodal campaign launch {script}')
