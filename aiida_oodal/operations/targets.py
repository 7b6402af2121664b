"""The file of a screening: ensembles, their reference sets, and targets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar

import yaml
from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida.common.links import validate_link_label
from pydantic import Field, model_validator

from aiida_oodal.data import LatentsData, MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.data.content import store_once
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.embeddings import EmbeddingsName, read_embeddings, read_sha256
from aiida_oodal.engine.exchange.model_names import label_models
from aiida_oodal.engine.settings import Settings

_UUID = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')


_Labels = Annotated[
    dict[str, str] | None,
    Field(description='Names of the labels in the files: energy, forces, stress or virial -> key.'),
]
_Elements = Annotated[
    list[str] | None, Field(description='Element of each LAMMPS type, for files of LAMMPS that do not say it.')
]


class EnsembleEntry(Settings):
    """One ensemble with its training set and held-out set."""

    TITLE: ClassVar[str] = 'ensemble'

    models: str | list[str] | dict[str, str] | None = Field(
        None, description='Pattern, list, or label -> file or UUID.'
    )
    reference: str | None = Field(None, description='Structures the models were trained on, or a fitted reference.')
    heldout: str | None = Field(
        None, description='Similar structures that the models were not trained on; they set the thresholds.'
    )
    reference_embeddings: str | list[str] | None = Field(None, description='Files with `latent_scalars`.')
    heldout_embeddings: str | list[str] | None = Field(None, description='Files with `latent_scalars`.')
    labels: _Labels = None
    elements: _Elements = None


class TargetEntry(Settings):
    """One set to score."""

    TITLE: ClassVar[str] = 'target'

    structures: str | None = Field(None, description='File or UUID; not needed where embeddings are given.')
    embeddings: dict[str, str | list[str]] = Field({}, description='By ensemble: files with `latent_scalars`.')
    labels: _Labels = None
    elements: _Elements = None


class ScreenFile(Settings):
    """The whole file."""

    TITLE: ClassVar[str] = 'screening'

    ensembles: dict[str, EnsembleEntry]
    targets: dict[str, TargetEntry]
    latents: dict[str, Any] = Field({}, description='LatentsSettings.')
    fit: dict[str, Any] = Field({}, description='FitOptions.')
    candidates: dict[str, Any] | None = Field(None, description='CandidateOptions.')
    against: str | None = Field(None, description='The ensemble that chooses the candidates.')
    atoms_per_job: int | None = Field(
        None, ge=1, description='Largest number of atoms in a job; larger sets are split.'
    )
    options: dict[str, Any] = Field({}, description='Options of the latents jobs, as `metadata.options`.')
    judge_options: dict[str, Any] = Field({}, description='Options of the jobs that fit references and score.')
    insist: bool = Field(False, description='Go on although parts are not known to belong together.')

    @model_validator(mode='before')
    @classmethod
    def _look_at_entries(cls, values: Any) -> Any:
        """Refuse a wrong entry by its name, before any of the files is read."""
        kinds: tuple[tuple[str, type[Settings]], ...] = (('ensembles', EnsembleEntry), ('targets', TargetEntry))
        for field, kind in kinds:
            entries = values.get(field)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                if problem := _find_problem(str(name), entry, kind):
                    raise ValueError(f'{kind.TITLE} {name!r}: {problem}')
        return values


def _find_problem(name: str, entry: Any, kind: type[Settings]) -> str | None:
    """Say what is wrong with an entry or its name, or return None."""
    try:
        validate_link_label(name)
    except ValueError:
        return 'a name is made of letters, digits and single underscores within it: rename it'
    if not isinstance(entry, dict):
        return f'{entry!r} is no entry; it has {", ".join(kind.model_fields)}'
    problem = kind.check(entry)
    return None if problem is None else problem.removeprefix(f'{kind.TITLE}: ')


def load_screen_file(path: Path) -> ScreenFile:
    """Read a file of targets.

    :raises OodalError: naming the file and the entry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OodalError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, dict):
        raise OodalError(f'{path} must have `ensembles` and `targets`, but holds {type(content).__name__}')
    try:
        return ScreenFile.load(content)
    except OodalError as error:
        raise OodalError(f'{path}: {error}') from error


class ScreenInputs:
    """Make the inputs of a :class:`~aiida_oodal.workchains.screen.ScreenWorkChain` out of a file of targets.

    Nodes of equal content are stored once: running the same file again makes none.

    :param path: the file; paths in it are relative to its folder.
    :param say: told what was read.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.content = load_screen_file(path)
        #: What files of embeddings may call the models of each ensemble.
        self._names: dict[str, set[str]] = {}
        self._path, self._folder, self._say = path, path.parent, say

    def build(self) -> dict[str, Any]:
        """Return ``ensembles``, ``targets`` and the settings, all but the engine's code and the computer.

        :raises OodalError: naming entry and file.
        """
        content = self.content
        inputs: dict[str, Any] = {
            'ensembles': {name: self._ensemble(name, entry) for name, entry in content.ensembles.items()},
            'targets': {name: self._target(name, entry) for name, entry in content.targets.items()},
            'reference': orm.Dict(content.fit),
        }
        if content.candidates is not None:
            inputs['candidates'] = orm.Dict(content.candidates)
        if content.against is not None:
            inputs['against'] = orm.Str(content.against)
        if content.atoms_per_job is not None:
            inputs['atoms_per_job'] = orm.Int(content.atoms_per_job)
        if content.insist:
            inputs['insist'] = orm.Bool(True)
        return inputs

    def _ensemble(self, name: str, entry: EnsembleEntry) -> dict[str, Any]:
        where = f'{self._path}: ensemble {name!r}'
        ensemble: dict[str, Any] = {}
        if entry.models is not None:
            models = self._label_models(entry.models, where)
            self._say(f'ensemble {name}: ' + ', '.join(f'{label} is {file}' for label, file in models.items()))
            ensemble['models'] = {label: self._model(text, f'{where}, model {label}') for label, text in models.items()}
        for kind in ('reference', 'heldout'):
            if (text := getattr(entry, kind)) is not None:
                ensemble[kind] = self._structures(text, f'{where}, {kind}', entry)
            if (texts := getattr(entry, f'{kind}_embeddings')) is not None:
                structures, latents = self._embeddings(texts, f'{where}, {kind}_embeddings')
                ensemble[f'{kind}_latents'] = latents
                ensemble.setdefault(kind, structures)
        self._names[name] = {name, *_names_of(ensemble)}
        return ensemble

    def _target(self, name: str, entry: TargetEntry) -> dict[str, Any]:
        where = f'{self._path}: target {name!r}'
        target: dict[str, Any] = {}
        if entry.structures is not None:
            target['structures'] = self._structures(entry.structures, f'{where}, structures', entry)
        for ensemble, texts in entry.embeddings.items():
            structures, latents = self._embeddings(texts, f'{where}, embeddings under {ensemble}')
            target.setdefault('structures', structures)
            if not _same_atoms(target['structures'], structures):
                raise OodalError(f'{where}: the embeddings under {ensemble} are of other structures')
            self._check_name(latents, ensemble, where)
            target.setdefault('latents', {})[ensemble] = latents
        if not target:
            raise OodalError(f'{where}: give `structures` or `embeddings`')
        return target

    def _label_models(self, models: str | list[str] | dict[str, str], where: str) -> dict[str, str]:
        """Return files by label: that in their name (w1), else by their order."""
        if isinstance(models, dict):
            return models
        try:
            labelled, notes = label_models(self._expand(models, where))
        except OodalError as error:
            raise OodalError(f'{where}: {error}') from error
        for note in notes:
            self._say(note)
        return labelled

    def _check_name(self, latents: dict[str, LatentsData], ensemble: str, where: str) -> None:
        """Refuse embeddings whose name says another ensemble."""
        if self.content.insist:
            return
        known = self._names.get(ensemble, set())
        for node in latents.values():
            name = node.identity.name
            if name is not None and name not in known:
                raise OodalError(
                    f'{where}: these embeddings are of {name} by the name of their file, not of {ensemble}: what one '
                    f'ensemble learnt says nothing about another. Put them under {name}, call the ensemble {name}, or '
                    'set `insist: true` if they belong together'
                )

    def _expand(self, patterns: str | Sequence[str], where: str) -> list[str]:
        """Return the files that patterns match, sorted; UUIDs stay as they are."""
        found: list[str] = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if _UUID.fullmatch(pattern):
                found.append(pattern)
                continue
            base = Path(pattern)
            folder = Path(base.anchor) if base.is_absolute() else self._folder
            matches = sorted(folder.glob(str(base.relative_to(base.anchor) if base.is_absolute() else base)))
            if not matches:
                raise OodalError(f'{where}: no file matches {pattern} in {folder.resolve()}')
            found += [str(match) for match in matches]
        return found

    def _model(self, text: str, where: str) -> Any:
        if _UUID.fullmatch(text):
            return _load(text, MaceModelData, where)
        (path,) = self._expand(text, where)
        return store_once(MaceModelData(Path(path)))

    def _structures(self, text: str, where: str, entry: EnsembleEntry | TargetEntry) -> Any:
        if _UUID.fullmatch(text):
            return _load(text, (StructureSetData, OodReferenceData), where)
        files = self._expand(text, where)
        if len(files) > 1:
            raise OodalError(f'{where}: {text} matches {len(files)} files; give one')
        node, failures = StructureSetData.read(Path(files[0]), labels=entry.labels, elements=entry.elements)
        self._say(f'{files[0]}: {node.n_structures} structures, {node.n_atoms} atoms')
        self._say_notes(node, files[0])
        for failure in failures[:5]:
            where = f' (line {failure["line"]})' if 'line' in failure else ''
            self._say(f'  structure {failure["structure"]}{where} is left out: {failure["message"]}')
        if len(failures) > 5:
            self._say(f'  and {len(failures) - 5} more are left out')
        return store_once(node)

    def _say_notes(self, node: StructureSetData, file: str) -> None:
        """Say what was left out, renamed or taken for a label."""
        for note in node.notes:
            self._say(f'  {note.removeprefix(f"{file}: ")}')

    def _embeddings(self, texts: str | list[str], where: str) -> tuple[StructureSetData, dict[str, LatentsData]]:
        """Import files of embeddings, one a model, of the same structures."""
        latents: dict[str, LatentsData] = {}
        first: StructureSetData | None = None
        for file in self._expand(texts, where):
            name = EmbeddingsName.parse(Path(file))
            with TemporaryDirectory() as folder:
                content = read_embeddings(Path(file), Path(folder), name.label)
                information = {'elements': content.symbols, 'name': name.model, 'sha256': read_sha256(Path(file))}
                node = LatentsData.from_folder(Path(folder), name.label, information)
            structures = StructureSetData(content)
            if first is not None and not _same_atoms(first, structures):
                raise OodalError(f'{where}: {file} is of other structures than the file of the first model')
            first = first or structures
            latents[name.label] = store_once(node)
            self._say(f'{file}: {content.n_atoms} x {node.get_shape("latents")[1]} latents of {name.label}')
            self._say_notes(structures, file)
        assert first is not None  # patterns match at least one file
        return store_once(first), latents


def _same_atoms(left: StructureSetData, right: StructureSetData) -> bool:
    mine, theirs = left.get_array('numbers'), right.get_array('numbers')
    return bool(mine.shape == theirs.shape and (mine == theirs).all())


def _names_of(ensemble: dict[str, Any]) -> set[str]:
    """Return what files of embeddings called the models that a reference was made of, or is to be made of."""
    reference = ensemble.get('reference')
    identities = [node.identity for node in ensemble.get('reference_latents', {}).values()]
    if isinstance(reference, OodReferenceData):
        identities += reference.model_identities.values()
    return {identity.name for identity in identities if identity.name is not None}


def _load(uuid: str, kinds: Any, where: str) -> Any:
    """Load a node of one of these kinds."""
    try:
        node = orm.load_node(uuid)
    except NotExistent as error:
        raise OodalError(f'{where}: there is no node {uuid} in this profile') from error
    if not isinstance(node, kinds):
        raise OodalError(f'{where}: {node} is of another kind')
    return node
