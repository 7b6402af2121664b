"""Engine command ``score``: latents of sets and a reference in, their scores and the candidates out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiida_oodal.engine.arrays import write_folder
from aiida_oodal.engine.content import find_repeats, find_same
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import REFERENCE_FILE, RESULTS_FILE, SCORES_FOLDER

from .candidates import CandidateOptions, choose_candidates, summarise
from .ensemble import EnsembleLatents
from .fit_job import open_shards
from .metrics import CONTRASTED
from .reference import OodReference, load_reference
from .scores import OodScores

#: Known structures of a set that are listed one by one.
_MOST_LISTED = 1000


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Score every set of ``job['sets']`` against the reference in :data:`REFERENCE_FILE`, and choose candidates.

    The job: ``sets``, by name a list of shards as for ``fit-reference``; ``candidates`` (null), the settings of
    :class:`.CandidateOptions`; ``choose_from``, the names of the sets that candidates are chosen from. Writes the
    arrays of the scores of each set into ``scores/<name>/``, and ``results.json`` with ``sets``: by name
    ``n_structures`` and ``n_atoms`` that were scored, ``flagged`` (how many are above the 95 % thresholds of scores
    that may contradict each other), ``left_out`` (isolated atoms that the reference set holds),
    ``n_known`` (structures that are in the reference set or the held-out set too), ``known`` (the first of them:
    position, which set, position there), and ``decisions`` where candidates were chosen.

    :raises OodalError: naming the set, if its latents are not of the reference's models.
    """
    reference = load_reference(folder / REFERENCE_FILE)
    options = CandidateOptions.read(job['candidates']) if job.get('candidates') else None
    results: dict[str, Any] = {'sets': {}}
    chosen_from: dict[str, EnsembleLatents] = {}
    for name, shards in job['sets'].items():
        try:
            latents = open_shards(folder, shards)
            scores = reference.score(latents, unknown_elements='far', chunk_atoms=reference.options.chunk_atoms)
            found = _describe(reference, latents, scores)
            if options is not None and name in job.get('choose_from', []):
                scored = latents.select(np.flatnonzero(np.isin(latents.structure_index, scores.structure_index)))
                found['decisions'] = _choose(reference, scored, scores, options, chosen_from)
                chosen_from[name] = scored
        except OodalError as error:
            raise OodalError(f'{name}: {error}') from error
        write_folder(folder / SCORES_FOLDER / name, scores.to_arrays())
        results['sets'][name] = found
        print(f'{name}: {len(scores)} structures, {len(scores.numbers)} atoms scored', flush=True)
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')


def _describe(reference: OodReference, latents: EnsembleLatents, scores: OodScores) -> dict[str, Any]:
    """Say what of a set was scored, and what of it the reference knows."""
    scored = np.isin(latents.structure_index, scores.structure_index)
    known = {i: where for i, where in reference.known.find(latents).items() if scored[i]}
    return {
        'n_structures': len(scores),
        'n_atoms': len(scores.numbers),
        'left_out': latents.structure_index[~scored].tolist(),
        'flagged': scores.count_flagged(CONTRASTED),
        'n_known': len(known),
        'known': [[int(latents.structure_index[i]), *known[i]] for i in list(known)[:_MOST_LISTED]],
    }


def _choose(
    reference: OodReference,
    latents: EnsembleLatents,
    scores: OodScores,
    options: CandidateOptions,
    others: Mapping[str, EnsembleLatents],
) -> dict[str, Any]:
    """Choose candidates among the structures that were scored; none that is known, or among those of another set.

    :param others: by name, the sets that were chosen from before.
    """
    known = _find_repeated(latents, others)
    known |= {i: f'it is in the {name} set' for i, (name, _) in reference.known.find(latents).items()}
    descriptors = reference.structure_consensus(latents) if options.needs_descriptors else None
    return summarise(scores, choose_candidates(scores, options, descriptors=descriptors, known=known), options)


def _find_repeated(latents: EnsembleLatents, others: Mapping[str, EnsembleLatents]) -> dict[int, str]:
    """Return the structures of a set that came before, in it or in another set, and where."""
    if latents.fingerprints is None:
        return {}
    repeated = np.flatnonzero(find_repeats(latents.fingerprints) < np.arange(len(latents)))
    found = dict.fromkeys(repeated.tolist(), 'it is in this set twice')
    for name, other in others.items():
        if other.fingerprints is not None:
            same = np.flatnonzero(find_same(latents.fingerprints, other.fingerprints) >= 0)
            found |= dict.fromkeys(same.tolist(), f'it is in {name} too')
    return found
