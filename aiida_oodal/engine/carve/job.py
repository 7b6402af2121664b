"""Engine command ``carve``: the snapshots of one walker in, clusters with their grades out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Grader, Grades, open_grader
from aiida_oodal.engine.files import CLUSTERS_FILE, LOG_FILE, RESULTS_FILE
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.start.home import FramesHome
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

from .candidates import cells_of, cut_candidates, judge_candidates
from .settings import CarveSettings


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Cut clusters out of ``job['snapshots']`` and grade their centres again inside the cells.

    The job: ``snapshots``, a structure set, or ``run``, what :func:`_read_snapshots` takes; ``settings`` and
    ``thresholds``, plain values of :class:`CarveSettings` and :class:`Thresholds`; ``learned``, the potential or
    ensemble that graded the snapshots, as :func:`.open_grader` takes it; ``cutoff``, its range if that is known;
    ``second_opinion``, another ensemble, or null. Writes ``clusters.npz``, if there are any, and ``results.json`` with
    ``centres``, a decision for every centre, ``second_opinion``, the reason if it failed, and ``verdict``, the message
    on a run whose files were read here.

    :raises OodalError: if frames have no gamma, or cells would be too small.
    """
    settings, thresholds = CarveSettings.read(job['settings']), Thresholds.read(job['thresholds'])
    snapshots, verdict = _read_snapshots(job, folder, thresholds)
    grader = open_grader(job['learned'], folder)
    attempts = cut_candidates(snapshots, settings, thresholds, job.get('cutoff'))
    cells = cells_of(attempts)
    print(f'{len(attempts)} centres in {len(snapshots)} snapshots, {len(cells)} cells', flush=True)
    grades = grader.grade(cells)
    if cells:
        _check_cutoff(settings, job.get('cutoff'), grader)
    opinions, trouble = _ask_second(job, folder, cells)
    found = judge_candidates(attempts, settings, thresholds, grades, opinions)
    if found.clusters:
        StructureSet.from_atoms(found.clusters).save(folder / CLUSTERS_FILE)
    results = {'centres': list(found.decisions), 'second_opinion': trouble, 'verdict': verdict}
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')
    print(f'{len(found.clusters)} of {len(attempts)} centres became clusters', flush=True)


def _read_snapshots(job: Mapping[str, Any], folder: Path, thresholds: Thresholds) -> tuple[list[Atoms], str | None]:
    """Return the frames to cut from, and the message of the verdict if the files of a run are read here.

    ``job['run']`` says how to read the files of an MD run that are in the folder: ``structure``, the structure it began
    with; ``elements``, of the types that the potential knows; ``units``; ``target_step``; ``restart_every``.
    """
    if 'run' not in job:
        return list(StructureSet.load(folder / job['snapshots'])), None
    given = job['run']
    if not (folder / LOG_FILE).exists():
        raise OodalError(
            f'the remote folder of MD has no {LOG_FILE}: it was cleaned or moved since. Run MD again, with '
            '`retrieve_snapshots` if its folder does not last'
        )
    run = read_run(
        folder,
        target_step=given['target_step'],
        thresholds=thresholds,
        restart_every=given['restart_every'],
    )
    home = FramesHome(StructureSet.load(folder / given['structure'])[0], given['elements'], given['units'])
    return [home.bring(frame) for frame in run.snapshots], run.verdict.message


def _check_cutoff(settings: CarveSettings, given: float | None, grader: Grader) -> None:
    """Refuse cells that were cut for a smaller cutoff than the potential has; it is known once the models are open.

    :raises OodalError: naming both.
    """
    cut_for = max(value for value in (settings.cutoff, given) if value is not None)
    if cut_for < grader.cutoff - 1e-6:
        raise OodalError(
            f'carve settings: cutoff = {cut_for:g}, but the cutoff of the models is {grader.cutoff:g} angstrom: give '
            'at least that'
        )


def _ask_second(
    job: Mapping[str, Any], folder: Path, cells: Sequence[Atoms]
) -> tuple[list[Grades | str] | None, str | None]:
    """Return the second opinion on every cell, or the reason why there is none; clusters are kept without it."""
    if not job.get('second_opinion') or not cells:
        return None, None
    try:
        return open_grader(job['second_opinion'], folder).grade(cells), None
    except (OodalError, ImportError) as error:
        print(f'going on without a second opinion: {error}', flush=True)
        return None, str(error)
