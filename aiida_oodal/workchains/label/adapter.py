"""The base class of adapters: how an AiiDA workflow of another package labels structures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

from aiida import orm
from aiida.common.exceptions import EntryPointError
from aiida.engine import Process
from aiida.plugins import CalculationFactory, WorkflowFactory
from aiida.plugins.entry_point import get_entry_points

from aiida_oodal.calculations.job.submit_script import EPILOGUE, prologue
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

from .values import LabelValues

#: Group of the entry points of adapters.
GROUP = 'aiida_oodal.adapters'


class Adapter(ABC):
    """How one AiiDA workflow, or calculation, labels one structure.

    A subclass has no state. ``inputs`` are those of the workflow without what belongs to one structure; ``settings``
    are plain values that the adapter itself wants to know. The page ``docs/labels.md`` writes one.
    """

    #: Entry point of the workflow, or of the calculation.
    WORKFLOW: ClassVar[str]
    #: What to install so that it is there.
    INSTALL: ClassVar[str] = ''
    #: Ports of the workflow that :meth:`make_inputs` fills in; ports in a namespace as ``pw.structure``.
    GIVEN: ClassVar[tuple[str, ...]] = ('structure',)
    #: Outputs of the workflow that :meth:`read` needs.
    OUTPUTS: ClassVar[tuple[str, ...]]
    #: Name of the YAML in ``workchains/protocols`` with the values that :meth:`fill` gets.
    PROTOCOL: ClassVar[str] = 'label_workflow'

    @abstractmethod
    def fill(
        self, code: orm.AbstractCode, values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inputs of the workflow without what belongs to one structure, and the settings.

        :param values: ``workflow``, ``settings`` and what else the protocol has, with the overrides of the user.
        :param options: of the job: resources, queue_name, ...
        :raises OodalError: if something is missing or contradicts itself.
        """

    @abstractmethod
    def get_level(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return, as plain JSON, all inputs that change the values of labels, and no others."""

    def describe_level(self, inputs: Mapping[str, Any]) -> str:
        """Return the level of theory in a few words; '' if there are none for it."""
        return ''

    @abstractmethod
    def make_inputs(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], structure: orm.StructureData, *, is_cluster: bool
    ) -> dict[str, Any]:
        """Return all inputs of the workflow for one structure.

        :param structure: its kinds are named after elements, and :meth:`check` accepted them.
        :param is_cluster: whether it was cut out of a larger structure.
        :raises OodalError: if it cannot be computed.
        """

    @abstractmethod
    def read(self, outputs: Mapping[str, orm.Node]) -> LabelValues:
        """Return what a workflow found that ended with exit code 0.

        :param outputs: those that :attr:`OUTPUTS` names.
        :raises OodalError: if the outputs are no label: not converged, in other units, incomplete.
        """

    def check(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], symbols: set[str] | None = None
    ) -> str | None:
        """Say what is wrong with inputs or settings beyond the ports of the workflow, or return None.

        :param symbols: elements of the structures, where they are known already.
        """
        return None


def load_adapter(name: str) -> Adapter:
    """Return an adapter.

    :param name: entry point of the group ``aiida_oodal.adapters``, or ``package.module:Class``.
    :raises OodalError: if there is none of this name, or it is no adapter.
    """
    known = {point.name: point for point in get_entry_points(GROUP)}
    if name not in known and ':' not in name:
        raise OodalError(
            f'there is no adapter {name!r}; there are {", ".join(sorted(known))}, or give the class of yours as '
            "'package.module:Class'"
        )
    try:
        adapter = known.get(name, EntryPoint(name, name, GROUP)).load()
    except (ImportError, AttributeError) as error:
        raise OodalError(
            f'adapter {name!r} cannot be imported ({error}); the module must be on the path of the daemon, too'
        ) from error
    if not (isinstance(adapter, type) and issubclass(adapter, Adapter)):
        raise OodalError(f'{name!r} is no adapter: it must be a subclass of {Adapter.__module__}.{Adapter.__name__}')
    made: Adapter = adapter()
    return made


def load_workflow(adapter: Adapter) -> type[Process]:
    """Return the class of the workflow, or calculation, of an adapter.

    :raises OodalError: if its plugin is not installed, with the way out.
    """
    for factory in (WorkflowFactory, CalculationFactory):
        try:
            workflow: type[Process] = factory(adapter.WORKFLOW)
        except EntryPointError as error:
            reason = error
        else:
            return workflow
    install = f'; install it with `pip install {adapter.INSTALL}`' if adapter.INSTALL else ''
    raise OodalError(f'the workflow {adapter.WORKFLOW!r} is not there ({reason}){install}')


@dataclass(frozen=True, kw_only=True)
class GammaSettings(Options):
    """Which structures have k-points by density, and which have the Gamma point only."""

    TITLE: ClassVar[str] = 'settings'

    gamma_only: str = option(
        'clusters',
        'Which structures have the Gamma point only: clusters, all or none. The others have k-points of the density '
        'that an input of the workflow gives.',
        pattern='^(clusters|all|none)$',
    )

    def has_gamma_only(self, *, is_cluster: bool) -> bool:
        """Tell whether a structure has the Gamma point only."""
        return self.gamma_only == 'all' or (self.gamma_only == 'clusters' and is_cluster)


def make_gamma_point() -> orm.KpointsData:
    """Return the Gamma point as a mesh."""
    kpoints = orm.KpointsData()
    kpoints.set_kpoints_mesh([1, 1, 1])
    return kpoints


def require_cell(structure: orm.StructureData) -> None:
    """Refuse a structure without a cell.

    :raises OodalError: naming it.
    """
    if structure.get_cell_volume() == 0:
        raise OodalError(f'StructureData<{structure.pk}> has no cell: give it one, with vacuum around a molecule')


def require_elements(values: Mapping[str, Any]) -> list[str]:
    """Return the elements that the user named.

    :raises OodalError: if there are none.
    """
    elements: list[str] = values['elements']
    if not elements:
        raise OodalError(
            "overrides: give `elements`, all that the structures may have, such as ['Al', 'Mg']: cutoffs and "
            'potentials must be the same for all labels'
        )
    return elements


def check_elements(symbols: Iterable[str] | None, known: Iterable[str], what: str) -> str | None:
    """Say for which elements something is missing, or return None.

    :param known: elements that have it.
    """
    missing = sorted(set(symbols or ()) - set(known))
    if not missing:
        return None
    return (
        f'there is no {what} for {", ".join(missing)}, only for {", ".join(sorted(known))}: give all elements of the '
        "campaign as overrides={'label': {'elements': [...]}}"
    )


def guard(options: Mapping[str, Any], computer: orm.Computer) -> dict[str, Any]:
    """Return options with which a job runs once, even if AiiDA is killed while submitting and submits it twice.

    :param options: of the job; lines of its submit script that they have are kept.
    """
    before = [prologue(computer.scheduler_type), options.get('prepend_text', '')]
    after = [options.get('append_text', ''), EPILOGUE]
    texts = {'prepend_text': before, 'append_text': after}
    return {**options, **{name: '\n'.join(filter(None, parts)) for name, parts in texts.items()}}


def require_code(code: orm.AbstractCode, plugin: str, stage: str = 'label') -> None:
    """Refuse a code that is for another program.

    :param plugin: entry point of the calculation that the code must be for.
    :raises OodalError: naming both.
    """
    if code.default_calc_job_plugin != plugin:
        raise OodalError(
            f'code {code.full_label} is for {code.default_calc_job_plugin}, and {plugin} is needed: in a campaign give '
            f"stages={{{stage!r}: {{'code': ...}}}}; `aiida-oodal setup codes` makes those of the programs on PATH"
        )
