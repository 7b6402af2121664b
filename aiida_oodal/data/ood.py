"""What was fitted on a reference set, and the scores of other sets against it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiida.orm import ArrayData
from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import OodScores

from .arrays import read_arrays


class OodReferenceData(ArrayData):
    """Whitening, alignment, densities and thresholds of one ensemble on one reference set; usable on later sets.

    :param reference: as :meth:`~aiida_oodal.engine.ood.reference.OodReference.fit` returns it.
    """

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        model_labels: list[str] = OrmMetadataField(description='Labels of the models, e.g. w1, w2, w3, w4')
        elements: list[int] = OrmMetadataField(description='Atomic numbers of the elements in the reference set')
        n_features: int = OrmMetadataField(description='Latents of one atom')
        n_atoms: int = OrmMetadataField(description='Atoms that it was fitted on')
        notes: list[str] = OrmMetadataField(description='What a user should know about this reference')

    def __init__(self, reference: OodReference | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reference is None:
            return
        for name, array in reference.to_arrays().items():
            self.set_array(name, array)
        self.base.attributes.set_many(
            {
                'model_labels': list(reference.labels),
                'elements': [int(number) for number in reference.elements],
                'n_features': int(reference.parts.alignment.means.shape[1]),
                'n_atoms': int(reference.n_atoms),
                'notes': list(reference.notes),
            }
        )

    def check_models(self, labels: Iterable[str]) -> str | None:
        """Say that models with these labels are not those that it was fitted for, or return None."""
        fitted, given = list(self.base.attributes.get('model_labels')), sorted(labels)
        if fitted == given:
            return None
        return f'the reference was fitted for the models {", ".join(fitted)}, not {", ".join(given)}'

    def get_reference(self) -> OodReference:
        """Return what was fitted."""
        return OodReference.from_arrays(read_arrays(self))


class OodScoresData(ArrayData):
    """Scores of one set of structures against one reference, per atom and per structure.

    :param scores: as :meth:`~aiida_oodal.engine.ood.reference.OodReference.score` returns them.
    """

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        metrics: list[str] = OrmMetadataField(description='Which scores it holds')
        model_labels: list[str] = OrmMetadataField(description='Labels of the models, e.g. w1, w2, w3, w4')
        n_atoms: int = OrmMetadataField(description='Atoms in all structures together')
        n_structures: int = OrmMetadataField(description='Number of structures')

    def __init__(self, scores: OodScores | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if scores is None:
            return
        for name, array in scores.to_arrays().items():
            self.set_array(name, array)
        self.base.attributes.set_many(
            {
                'metrics': sorted(scores.per_structure),
                'model_labels': list(scores.labels),
                'n_atoms': len(scores.numbers),
                'n_structures': len(scores.structure_index),
            }
        )

    def get_scores(self) -> OodScores:
        """Return the scores."""
        return OodScores.from_arrays(read_arrays(self))
