"""Engine command ``select``: the clusters of all walkers in, those that are worth a label out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiida_oodal.engine.evaluator import open_grader
from aiida_oodal.engine.files import RESULTS_FILE
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

from .selection import choose_clusters
from .settings import SelectSettings


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Grade ``job['candidates']`` by the current potential, and choose among them.

    The job: ``candidates``, a structure set of clusters, each with ``info['key']``; ``known``, one of clusters that
    were chosen before, or null; ``settings`` and ``thresholds``; ``learned``, as :func:`.open_grader` takes it. Writes
    ``results.json`` with ``chosen``, the keys, that of the most wanted cluster first, and ``decisions``, a reason for
    each key.
    """
    candidates = list(StructureSet.load(folder / job['candidates']))
    known = list(StructureSet.load(folder / job['known'])) if job.get('known') else []
    grader = open_grader(job['learned'], folder)
    grades = grader.grade([*candidates, *known], centres_only=True)
    decisions = choose_clusters(
        candidates,
        grades[: len(candidates)],
        SelectSettings.read(job['settings']),
        Thresholds.read(job['thresholds']),
        has_active_set=grader.has_active_set,
        known=known,
        known_grades=grades[len(candidates) :],
    )
    taken = sorted((decision for decision in decisions if decision.rank is not None), key=lambda d: d.rank or 0)
    results = {
        'chosen': [candidates[decision.index].info['key'] for decision in taken],
        'decisions': {
            atoms.info['key']: asdict(decision) | {'second_opinion': atoms.info.get('second_opinion')}
            for atoms, decision in zip(candidates, decisions, strict=True)
        },
    }
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')
    print(f'{len(taken)} of {len(candidates)} candidates chosen', flush=True)
