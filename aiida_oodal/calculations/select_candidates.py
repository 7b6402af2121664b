"""Choose the structures of a set that are worth a label."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import LatentsData, OodReferenceData, OodScoresData, StructureSetData, open_ensemble
from aiida_oodal.engine.ood.candidates import select_candidates as choose
from aiida_oodal.engine.ood.score_settings import CandidateSettings

from .explained import explained


@calcfunction
@explained
def select_candidates(
    structures: StructureSetData,
    settings: orm.Dict,
    scores: OodScoresData,
    reference: OodReferenceData,
    **latents: LatentsData,
) -> dict[str, Any]:
    """Return ``candidates``, the chosen structures in order of preference, and ``decisions``: why these.

    :param structures: the set that was scored.
    :param settings: fields of :class:`aiida_oodal.engine.ood.score_settings.CandidateSettings`.
    :param reference: against which it was scored; its alignment says how far structures are from each other.
    :param latents: of the set, one for each model and shard, by any key.
    """
    options = CandidateSettings.load(settings.get_dict())
    found = scores.get_scores()
    threshold = options.threshold
    if options.level is not None:
        threshold = found.thresholds.structure(options.metric, options.aggregate, options.level)
    descriptors = None
    if options.method != 'top' or options.tolerance is not None:
        with open_ensemble(latents.values()) as ensemble:
            descriptors = reference.get_reference().structure_consensus(ensemble)
    decisions = choose(
        found.of(options.metric, options.aggregate),
        n=options.n,
        threshold=threshold,
        quantile=options.quantile,
        method=options.method,
        descriptors=descriptors,
        tolerance=options.tolerance,
        seed=options.seed,
    )
    taken = sorted((entry for entry in decisions if entry.order is not None), key=lambda entry: entry.order or 0)
    content = structures.get_set()
    frames = []
    for entry in taken:
        atoms = content[int(found.structure_index[entry.index])]
        atoms.info |= {'score': entry.score, 'rank': entry.rank, 'set_index': int(found.structure_index[entry.index])}
        frames.append(atoms)
    left_out = Counter(entry.reason for entry in decisions if entry.order is None)
    by = f'{options.metric} ({options.aggregate})'
    return {
        'candidates': StructureSetData(frames),
        'decisions': orm.Dict(
            {
                'summary': f'{len(taken)} of {len(decisions)} structures are candidates by {by}',
                'taken': [
                    {
                        'structure': int(found.structure_index[entry.index]),
                        'score': entry.score,
                        'rank': entry.rank,
                        'reason': entry.reason,
                    }
                    for entry in taken
                ],
                'left_out': dict(left_out),
            }
        ),
    }


def validate_candidate_settings(node: orm.Dict, _: object) -> str | None:
    """Refuse wrong settings at submission."""
    return CandidateSettings.check(node.get_dict())
