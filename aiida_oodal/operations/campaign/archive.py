"""A campaign as an AiiDA archive, with all that its status, its report and the reasons for its labels are read from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiida import orm
from aiida.common.log import AIIDA_LOGGER
from aiida.tools.archive.create import create_archive
from aiida.tools.archive.exceptions import ArchiveExportError, ExportValidationError
from aiida.tools.archive.implementations.sqlite_zip.main import ArchiveFormatSqlZip

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import find_entries

#: How the name of an archive ends.
SUFFIX = '.aiida'


@dataclass(frozen=True)
class Exported:
    """What was written.

    :param path: of the archive, absolute.
    :param size: of the file, bytes.
    :param campaigns: UUIDs of the campaigns in it: those whose labels or potentials this one began with come along.
    """

    path: Path
    size: int
    campaigns: tuple[str, ...]


def export_campaign(campaign: orm.WorkChainNode, path: Path, *, overwrite: bool = False) -> Exported:
    """Write a campaign, all that it called, and all that led to what it began with, to an archive.

    The state of the queue is an extra of the structures and travels with them. An entry is counted on the first node
    that had its atoms, which may belong to another campaign that asked for the same label: it comes along.

    :param overwrite: replace a file that is there.
    :raises OodalError: if the campaign runs, a process of it was not closed, or the file cannot be written.
    """
    if not campaign.is_terminated:
        raise OodalError(
            f'{campaign.process_label}<{campaign.pk}> has not ended, and AiiDA exports no process that runs: '
            f'`aiida-oodal campaign stop {campaign.pk}` ends it after its round'
        )
    path = path if path.suffix else path.with_suffix(SUFFIX)
    if not path.parent.is_dir():
        raise OodalError(f'{path}: there is no folder {path.parent}: make it first')
    if path.exists() and not overwrite:
        raise OodalError(f'{path} is there already: give another name, or --overwrite')
    entries = [entry.load_node() for entry in find_entries(campaign=campaign.uuid)]
    try:
        with _quiet():
            create_archive([campaign, *entries], path, overwrite=overwrite)
    except ExportValidationError as error:
        raise OodalError(
            f'{error} `aiida-oodal doctor --fix` closes processes that were killed; a campaign that this one shares '
            'labels with may still run'
        ) from error
    except (ArchiveExportError, OSError) as error:
        raise OodalError(f'{path} could not be written: {error}') from error
    return Exported(path.resolve(), path.stat().st_size, tuple(_read_campaigns(path, campaign)))


def _read_campaigns(path: Path, campaign: orm.WorkChainNode) -> Iterator[str]:
    """Yield the UUIDs of the campaigns in an archive, that one first."""
    yield campaign.uuid
    with ArchiveFormatSqlZip().open(path, 'r') as reader:
        query = reader.querybuilder().append(
            orm.WorkChainNode, filters={'process_type': campaign.process_type}, project='uuid', tag='campaign'
        )
        for uuid in query.order_by({'campaign': 'ctime'}).all(flat=True):
            if uuid != campaign.uuid:
                yield uuid


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what AiiDA logs of an export, a table of numbers of rows."""
    logger = AIIDA_LOGGER.getChild('export')
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
