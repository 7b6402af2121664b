"""MACE models as they are trained: opened, described, evaluated without gradients unless forces are asked for.

A ``.model`` file is a pickle and runs code when it is opened: this module is for compute nodes only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

from .graphs import Batch, build_graph, merge_graphs
from .model_file import check_head
from .model_info import ModelInfo, check_ensemble

__all__ = ['Evaluation', 'MaceModel', 'ModelInfo', 'check_ensemble', 'open_model', 'pick_device']

FloatArray: TypeAlias = NDArray[np.floating[Any]]
Layers: TypeAlias = Literal['all', 'last', 'first']
Precision: TypeAlias = Literal['float32', 'float64'] | None


@dataclass(frozen=True)
class Evaluation:
    """What one model says about a batch.

    :param latents: invariant node features, shape ``(n_atoms, n_features)``, of the wanted graphs.
    :param energies: shape ``(n_graphs,)``, eV, of the wanted graphs.
    :param forces: minus the gradient of these energies by the positions of *all* atoms of the batch, shape
        ``(n_all_atoms, 3)``, eV/angstrom; ``None`` where not asked for.
    """

    latents: FloatArray
    energies: NDArray[np.float64]
    forces: FloatArray | None


class MaceModel:
    """A MACE model ready to be evaluated; :func:`open_model` makes it.

    :ivar columns: columns of the node features that are stored, shape ``(n_features,)``.
    """

    def __init__(self, module: Any, info: ModelInfo, *, layers: Layers, dtype: Any, device: str, head: int) -> None:
        import torch

        self.info = info
        self.device = device
        self.dtype = dtype
        # The table of isolated atoms stays in float64: energies of molecules are thousands of eV, differences are not.
        self._isolated = np.atleast_2d(_as_numpy(module.atomic_energies_fn.atomic_energies)).astype(np.float64)[head]
        self._head = head
        self._module = module.to(device=device, dtype=dtype).eval()
        self._species = np.full(len(chemical_symbols), -1, dtype=np.int64)
        self._species[_as_numpy(module.atomic_numbers)] = np.arange(len(info.elements))
        self.columns = invariant_columns(info.layout, layers)
        self._columns = torch.as_tensor(self.columns, device=device)
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)

    @property
    def n_layers(self) -> int:
        """Number of interactions: how many cutoffs far an atom is seen."""
        return len(self.info.layout)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Floating point type of latents and forces."""
        return np.dtype(str(self.dtype).removeprefix('torch.'))

    def bytes_per_edge(self, *, forces: bool = False) -> int:
        """Estimate peak memory per edge [bytes].

        Messages are the largest arrays: one value per edge for every component of a convolution's output. The factors
        are measured (``benchmarks/latents.py --part bytes``) and rounded up: 2.5 to 3.2 such arrays live at once
        without gradients, 4.8 with.
        """
        widest = max(int(layer.conv_tp.irreps_out.dim) for layer in self._module.interactions)
        return (6 if forces else 4) * widest * self.stored_dtype.itemsize

    def evaluate(self, batch: Batch, *, forces: bool = False) -> Evaluation:
        """Evaluate a batch of graphs.

        :raises RuntimeError, MemoryError, torch.OutOfMemoryError: if the batch does not fit into memory.
        """
        import torch

        n_wanted = batch.n_wanted
        n_atoms = int(batch.sizes[:n_wanted].sum())
        data = self._tensors(batch)
        with torch.set_grad_enabled(forces):
            interaction, features = self.forward(data)
            interaction = interaction[:n_wanted]
            gradient = None
            if forces:
                # isolated atoms have no edges, and so no path from the energy to their positions
                (gradient,) = torch.autograd.grad(interaction.sum(), data['positions'], allow_unused=True)
                if gradient is None:
                    gradient = torch.zeros_like(data['positions'])
        # index_select copies: a view would keep all columns alive
        latents = features.detach()[:n_atoms].index_select(1, self._columns)
        isolated = self.isolated_energies(batch.numbers[:n_atoms])
        owner = np.repeat(np.arange(n_wanted), batch.sizes[:n_wanted])
        return Evaluation(
            latents=_as_numpy(latents),
            energies=np.bincount(owner, weights=isolated, minlength=n_wanted) + _as_numpy(interaction).astype(float),
            forces=None if gradient is None else -_as_numpy(gradient),
        )

    def isolated_energies(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the energies of isolated atoms, shape ``(n_atoms,)``, eV, of atomic numbers that the model knows."""
        isolated: NDArray[np.float64] = self._isolated[self._species[numbers]]
        return isolated

    def forward(self, data: Mapping[str, Any]) -> tuple[Any, Any]:
        """Run the model; whether gradients are kept is torch's own setting.

        :param data: :meth:`atom_tensors`, and ``positions`` ``(n_atoms, 3)``, ``edge_index`` ``(2, n_edges)`` (sender,
            receiver) and ``shifts`` ``(n_edges, 3)``: an edge is position of the receiver - that of the sender + shift.
        :returns: tensors: energies without those of isolated atoms, shape ``(n_graphs,)``, eV; node features, shape
            ``(n_atoms, n)``, of which :attr:`columns` are invariant.
        """
        out = self._module(data, compute_force=False)
        return _interaction_energies(out), out['node_feats']

    def atom_tensors(self, numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> dict[str, Any]:
        """Put what depends on the atoms only into the tensors that :meth:`forward` reads.

        :param numbers: atomic numbers that the model knows, shape ``(n_atoms,)``.
        :param sizes: number of atoms of each graph, shape ``(n_graphs,)``.
        """
        import torch

        species, n_graphs = self._whole(self._species[numbers]), len(sizes)
        return {
            'node_attrs': torch.nn.functional.one_hot(species, len(self.info.elements)).to(self.dtype),
            # read for stresses only, which nobody asks for here
            'unit_shifts': self._real(np.zeros((0, 3))),
            'cell': self._real(np.zeros((3 * n_graphs, 3))),
            'batch': self._whole(np.repeat(np.arange(n_graphs), sizes)),
            'ptr': self._whole(np.concatenate([[0], np.cumsum(sizes)])),
            'head': self._whole(np.full(n_graphs, self._head)),
        }

    def _tensors(self, batch: Batch) -> dict[str, Any]:
        """Put a batch into the tensors that :meth:`forward` reads."""
        return self.atom_tensors(batch.numbers, batch.sizes) | {
            'positions': self._real(batch.positions),
            'edge_index': self._whole(batch.edges),
            'shifts': self._real(batch.shifts),
        }

    def _real(self, array: NDArray[Any]) -> Any:
        import torch

        return torch.as_tensor(array, dtype=self.dtype, device=self.device)

    def _whole(self, array: NDArray[Any]) -> Any:
        import torch

        return torch.as_tensor(array, dtype=torch.int64, device=self.device)


def open_model(
    path: Path,
    *,
    label: str = '',
    layers: Layers = 'all',
    precision: Precision = None,
    device: str = 'auto',
    head: str | None = None,
) -> MaceModel:
    """Open a trained MACE model.

    :param label: what messages call it (``w1``); default the file's name.
    :param layers: whose invariant features become latents.
    :param precision: type of the evaluation; ``None`` for the model's own.
    :param head: head of a multi-head model; ``None`` for its only one, or the one named ``default``.
    :raises OodalError: if the file holds no MACE model or one that this mace-torch cannot evaluate, no GPU is there, or
        the head is unknown.
    """
    torch = _import_torch()
    device = pick_device(device)
    module = _load(path, device)
    info = _describe(module, path, label or path.stem)
    dtype = getattr(torch, precision or info.dtype)
    model = MaceModel(module, info, layers=layers, dtype=dtype, device=device, head=_pick_head(info, head))
    _try_out(model, path)
    return model


def pick_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``.

    :raises OodalError: if a GPU is asked for and torch sees none.
    """
    cuda = bool(_import_torch().cuda.is_available())
    if device == 'cuda' and not cuda:
        raise OodalError("device = 'cuda', but torch sees no GPU on this node: use 'auto' or 'cpu', or ask for a GPU")
    return ('cuda' if cuda else 'cpu') if device == 'auto' else device


def invariant_columns(layout: Sequence[str], layers: Layers) -> NDArray[np.int64]:
    """Return the columns of MACE's node features that no rotation changes, shape ``(n_features,)``.

    Layers lie side by side, each with the irreps of ``layout``; scalars of even parity (``0e``) are kept.
    """
    from e3nn.o3 import Irreps

    kept, start = [], 0
    for text in layout:
        irreps = Irreps(text)
        parts = [
            np.arange(s.start, s.stop)
            for s, (_, irrep) in zip(irreps.slices(), irreps, strict=True)
            if irrep.is_scalar()
        ]
        kept.append(start + np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
        start += irreps.dim
    chosen = {'all': kept, 'last': kept[-1:], 'first': kept[:1]}[layers]
    return np.concatenate(chosen).astype(np.int64)


def _import_torch() -> Any:
    with _quiet():
        try:
            import mace.modules  # noqa: F401  before e3nn: it sets how torch.load treats e3nn's own constants
            import torch
        except ModuleNotFoundError as error:
            raise OodalError(f'{error.name} is not installed on this node: install mace-torch there') from error
    return torch


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what mace-torch and e3nn warn of when imported: deprecations that no user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def _load(path: Path, device: str) -> Any:
    """Unpickle a model."""
    import pickle

    import torch
    from mace.modules.models import MACE

    advice = 'give the .model file that mace_run_train wrote'
    if not path.is_file():
        raise OodalError(f'{path} does not exist: {advice}')
    try:
        with _quiet():
            module = torch.load(path, map_location=device, weights_only=False)
    # what unpickling raises on files that are cut, of another kind, or name classes that are not there
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, AttributeError, ImportError) as error:
        raise OodalError(
            f'{path} cannot be opened as a MACE model ({type(error).__name__}: {error}); {advice}'
        ) from error
    if not isinstance(module, MACE):
        kind = 'a compiled model' if isinstance(module, torch.jit.ScriptModule) else f'a {type(module).__name__}'
        raise OodalError(f'{path} holds {kind}, not a MACE or ScaleShiftMACE model; {advice}')
    if hasattr(module, 'joint_embedding'):
        raise OodalError(
            f'{path} takes inputs beside the structure ({", ".join(module.embedding_specs)}): not supported'
        )
    return module


def _describe(module: Any, path: Path, label: str) -> ModelInfo:
    """Read what a model says about itself, files of old mace-torch versions included."""
    from e3nn.o3 import Irreps

    layout = tuple(str(Irreps(str(product.linear.irreps_out))) for product in module.products)
    return ModelInfo(
        label=label,
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        kind=type(module).__name__,
        elements=tuple(chemical_symbols[number] for number in _as_numpy(module.atomic_numbers)),
        # float32 files say 4.199999809: rounded, the cutoffs of one ensemble compare equal
        cutoff=round(float(module.r_max), 6),
        layout=layout,
        invariants=tuple(Irreps(text).count('0e') for text in layout),
        dtype=str(next(module.parameters()).dtype).removeprefix('torch.'),
        # models of mace-torch before 0.3.7 have no heads
        heads=tuple(getattr(module, 'heads', None) or ('Default',)),
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


def _pick_head(info: ModelInfo, head: str | None) -> int:
    """Return the index of a head."""
    if problem := check_head(info.heads, head, f'{info.label} ({info.file})'):
        raise OodalError(problem)
    names = [name.lower() for name in info.heads]
    return names.index(head.lower() if head is not None else names[0] if len(names) == 1 else 'default')


def _try_out(model: MaceModel, path: Path) -> None:
    """Evaluate two atoms, so that a model of another version of mace-torch is found out before the work begins."""
    atoms = Atoms([model.info.elements[0]] * 2, positions=[[0.0, 0.0, 0.0], [0.5 * model.info.cutoff, 0.0, 0.0]])
    batch = merge_graphs([build_graph(atoms, model.info.cutoff)])
    try:
        model.evaluate(batch)
    # what code of one version raises on objects of another
    except (AttributeError, TypeError, KeyError, IndexError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and 'memory' in str(error):
            return  # the budget of the job deals with that
        here = importlib.metadata.version('mace-torch')
        raise OodalError(
            f'{path} cannot be evaluated by mace-torch {here}, the version on this node '
            f'({type(error).__name__}: {error}): it was most likely trained by an older version. Install that version '
            'there, or train the model again'
        ) from error


def _interaction_energies(out: Mapping[str, Any]) -> Any:
    """Return energies without those of isolated atoms, shape ``(n_graphs,)``, eV: ScaleShiftMACE, then plain MACE."""
    if out.get('interaction_energy') is not None:
        return out['interaction_energy']
    return out['contributions'][:, 1:].sum(dim=1)


def _as_numpy(values: Any) -> NDArray[Any]:
    """Return the numbers of a tensor; models of old mace-torch versions hold lists where newer ones hold tensors."""
    array: NDArray[Any] = values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)
    return array
