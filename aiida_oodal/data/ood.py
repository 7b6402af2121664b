"""What was fitted on a reference set, and the scores of other sets against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida.orm import ArrayData
from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.ood.identity import ModelIdentity
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import OodScores

from .arrays import attach_folder, read_arrays
from .caching import StoredHash
from .identity import compare_models, identify
from .latents import LatentsData
from .mace import MaceModelData


class OodReferenceData(ArrayData):
    """Whitening, alignment, densities and thresholds of one ensemble on one reference set; usable on later sets.

    :param reference: as :meth:`~aiida_oodal.engine.ood.reference.OodReference.fit` returns it.
    """

    _CLS_NODE_CACHING = StoredHash

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        model_labels: list[str] = OrmMetadataField(description='Labels of the models, e.g. w1, w2, w3, w4')
        model_sha256: dict[str, str | None] = OrmMetadataField({}, description='SHA-256 of each model by label')
        model_names: dict[str, str | None] = OrmMetadataField({}, description='Ensemble in the name of its embeddings')
        cutoff: float | None = OrmMetadataField(None, description='Cutoff of the models, angstrom')
        layers: str | None = OrmMetadataField(None, description='Which layers the latents are of: all, last or first')
        judge: str | None = OrmMetadataField(None, description='Score that decides whether an atom is known')
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
        self._describe(reference)

    @classmethod
    def from_folder(cls, folder: Path) -> OodReferenceData:
        """Take the arrays that ``fit-reference`` left; they are streamed.

        :raises FileNotFoundError: if there are none.
        :raises OodalError: if they are damaged.
        """
        node = cls()
        node._describe(OodReference.from_arrays(attach_folder(node, folder)))
        return node

    def check_models(
        self,
        models: Mapping[str, MaceModelData | LatentsData],
        *,
        insist: bool = False,
        given_as: str = 'the input',
    ) -> str | None:
        """Say that models, or latents of models, are not those that it was fitted for, or return None.

        :param models: by label; hashes are compared as far as they are known, names of files of embeddings too.
        :param insist: compare the labels only.
        :param given_as: what messages call the models.
        """
        fitted, labels = list(self.base.attributes.get('model_labels')), sorted(models)
        if fitted != labels:
            return f'the reference was fitted for the models {", ".join(fitted)}, not {", ".join(labels)}'
        if insist:
            return None
        given = {label: identify(node) for label, node in models.items()}
        return compare_models(self.model_identities, given, 'the reference', given_as)

    @property
    def model_identities(self) -> dict[str, ModelIdentity]:
        """Which models it was fitted for, by label, as far as it is known."""
        get = self.base.attributes.get
        digests, names = get('model_sha256', {}), get('model_names', {})
        shared = {'cutoff': get('cutoff', None), 'layers': get('layers', None)}
        return {
            label: ModelIdentity(sha256=digests.get(label), name=names.get(label), **shared)
            for label in get('model_labels')
        }

    def get_reference(self) -> OodReference:
        """Return what was fitted."""
        return OodReference.from_arrays(read_arrays(self))

    def _describe(self, reference: OodReference) -> None:
        """Set the attributes."""
        models = reference.models
        cutoffs = [model.cutoff for model in models.values() if model.cutoff is not None]
        self.base.attributes.set_many(
            {
                'model_labels': list(reference.labels),
                'model_sha256': {label: model.sha256 for label, model in models.items()},
                'model_names': {label: model.name for label, model in models.items()},
                'cutoff': max(cutoffs, default=None),
                'layers': next((model.layers for model in models.values()), None),
                'judge': reference.judge,
                'elements': [int(number) for number in reference.elements],
                'n_features': int(reference.parts.alignment.means.shape[1]),
                'n_atoms': int(reference.n_atoms),
                'notes': list(reference.notes),
            }
        )


class OodScoresData(ArrayData):
    """Scores of one set of structures against one reference, per atom and per structure.

    :param scores: as :meth:`~aiida_oodal.engine.ood.reference.OodReference.score` returns them.
    """

    _CLS_NODE_CACHING = StoredHash

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
        self._describe(scores)

    @classmethod
    def from_folder(cls, folder: Path) -> OodScoresData:
        """Take the arrays that ``score`` left for one set; they are streamed.

        :raises FileNotFoundError: if there are none.
        :raises OodalError: if they are damaged.
        """
        node = cls()
        node._describe(OodScores.from_arrays(attach_folder(node, folder)))
        return node

    def get_scores(self) -> OodScores:
        """Return the scores."""
        return OodScores.from_arrays(read_arrays(self))

    def _describe(self, scores: OodScores) -> None:
        """Set the attributes."""
        self.base.attributes.set_many(
            {
                'metrics': sorted(scores.per_structure),
                'model_labels': list(scores.labels),
                'n_atoms': len(scores.numbers),
                'n_structures': len(scores.structure_index),
            }
        )
