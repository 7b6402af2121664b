"""Labellers and trainers, which a campaign names by their entry points: loading them and checking their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common.exceptions import EntryPointError
from aiida.engine import ProcessSpec, WorkChain
from aiida.engine.processes.ports import PortNamespace
from aiida.plugins import WorkflowFactory
from aiida.plugins.entry_point import get_entry_point_names

from aiida_oodal.engine.errors import OodalError, suggest

from .label.base import LabelWorkChain
from .train.base import TrainWorkChain

#: Ports of the contract that the campaign fills in.
LABEL_PORTS = ('clusters', 'structures', 'campaign', 'enough', 'metadata')
TRAIN_PORTS = ('labels', 'validation', 'anchors', 'learned', 'metadata')


def define_stage(spec: ProcessSpec, name: str, default: str, text: str) -> None:
    """Define ``<name>.workflow``, the entry point of a labeller or trainer, and ``<name>.inputs``, its inputs.

    :param default: entry point.
    :param text: what it does, a verb in the third person.
    """
    spec.input(
        f'{name}.workflow',
        valid_type=orm.Str,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Str(default),
        help=f'Entry point of the WorkChain that {text}.',
    )
    spec.input_namespace(
        f'{name}.inputs',
        dynamic=True,
        help='Inputs of this WorkChain, without those that the campaign fills in; its `get_builder_from_protocol` '
        'makes them.',
    )


def load_labeller(entry_point: str) -> type[LabelWorkChain]:
    """Return the class of a labeller.

    :raises OodalError: if there is none of this name, or it is no labeller.
    """
    labeller: type[LabelWorkChain] = _load(entry_point, LabelWorkChain, 'labeller')
    return labeller


def load_trainer(entry_point: str) -> type[TrainWorkChain]:
    """Return the class of a trainer.

    :raises OodalError: if there is none of this name, or it is no trainer.
    """
    trainer: type[TrainWorkChain] = _load(entry_point, TrainWorkChain, 'trainer')
    return trainer


def _load(entry_point: str, base: Any, kind: str) -> Any:
    try:
        stage = WorkflowFactory(entry_point)
    except EntryPointError as error:
        hint = suggest(entry_point, get_entry_point_names('aiida.workflows'))
        raise OodalError(f'there is no {kind} {entry_point!r}: {hint} (`verdi plugin list aiida.workflows`)') from error
    if not (isinstance(stage, type) and issubclass(stage, base)):
        raise OodalError(f'{entry_point!r} is no {kind}: it is not a subclass of {base.__name__}')
    return stage


def check_inputs(stage: type[WorkChain], inputs: Mapping[str, Any], given_later: Sequence[str]) -> str | None:
    """Return what is wrong with the inputs of a labeller or trainer, or None.

    :param given_later: ports that the campaign fills in.
    """
    ports = PortNamespace()
    ports.absorb(stage.spec().inputs, exclude=given_later)
    error = ports.validate(ports.pre_process(dict(inputs)))
    return None if error is None else f'{error.port}: {error.message}'


def unpack(builder: Any) -> dict[str, Any]:
    """Return the inputs of a filled builder, for the namespace ``inputs`` of a stage."""
    return dict(builder._inputs(prune=True))
