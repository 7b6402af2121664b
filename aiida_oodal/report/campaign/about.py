"""What a campaign was asked to do, and how large its errors are, as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.convergence import ConvergenceSettings
from aiida_oodal.queue.entry import EXTRA

from .history import CampaignHistory

#: Trainings whose errors are shown side by side, at most.
MOST_TRAININGS = 10
#: Settings of a walker that say what it does, in the order in which they are shown.
_OF_WALKERS = ('ensemble', 'temperature', 'pressure', 'steps', 'timestep_ps', 'velocity_seed')


def describe_campaign(campaign: orm.WorkChainNode, history: CampaignHistory) -> list[tuple[str, str]]:
    """Return name and value of what a campaign was asked to do: label, times, elements, labels, trainer, settings."""
    inputs = campaign.inputs
    limits = Thresholds.load(inputs.thresholds.get_dict() if 'thresholds' in inputs else {})
    halt_error = inputs.calibration.get_dict().get('halt_error') if 'calibration' in inputs else None
    halt = '' if halt_error is None else f', or where it is calibrated for a force error of {halt_error:g} eV/Å'
    rows = [
        ('campaign', f'{campaign.label or "without a label"}, PK {campaign.pk}, UUID {campaign.uuid}'),
        ('time', _describe_time(campaign)),
        ('elements', ', '.join(_find_elements(campaign))),
        ('labels', _describe_labels(campaign, history)),
        ('trainer', f'{inputs.train.workflow.value}{_describe_settings(inputs.train.inputs)}'),
        (
            'thresholds of γ',
            f'learn above {limits.gamma_select:g}, halt above {limits.gamma_break:g}{halt}, not physical above '
            f'{limits.gamma_ceiling:g}',
        ),
        ('validation', _describe_validation(campaign)),
        ('convergence', _describe_convergence(campaign)),
    ]
    shared = inputs.md.settings.get_dict() if 'md' in inputs and 'settings' in inputs.md else {}
    for name, walker in sorted(inputs.walkers.items()):
        rows.append((f'walker {name}', _describe_walker(walker, shared)))
    return rows


def list_errors(history: CampaignHistory) -> tuple[list[str], list[int], list[dict[str, Any]]]:
    """Return the elements, the trainings that are shown, and a row for each labelled set of the last training.

    :return: of each row ``name``, ``role``, ``n_structures``, ``energy_rmse`` [meV/atom], ``stress_rmse`` [GPa],
        ``force_rmse``, ``core`` (core atoms of clusters) and ``by_element`` [meV/angstrom], and ``by_training``, the
        force errors of the potentials of the trainings that are shown [meV/angstrom]; None where nothing is known.
    """
    if not history.trainings:
        return [], [], []
    parts = [_read_parts(results) for results in history.trainings]
    found, shown = parts[-1], choose_evenly(len(parts), MOST_TRAININGS)
    elements = sorted({element for part in found.values() for element in part.get('by_element') or {}})
    rows = [
        {
            'name': name,
            'role': part.get('role', ''),
            **{key: part.get(key) for key in ('n_structures', 'force_rmse', 'energy_rmse', 'stress_rmse')},
            'core': (part.get('core') or {}).get('force_rmse'),
            'by_element': [(part.get('by_element') or {}).get(element, {}).get('force_rmse') for element in elements],
            'by_training': [parts[number].get(name, {}).get('force_rmse') for number in shown],
        }
        for name, part in found.items()
    ]
    return elements, shown, rows


def _read_parts(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the errors of a training by labelled set."""
    found = dict(results.get('parts') or {})
    if results.get('validation'):
        found['validation'] = results['validation']
    return found


def choose_evenly(count: int, most: int) -> list[int]:
    """Return all numbers below a count, or if there are too many the first, the last and some evenly between them."""
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, most))})


def _describe_time(campaign: orm.WorkChainNode) -> str:
    begun = f'begun {_format_time(campaign.ctime)}'
    return f'{begun}, ended {_format_time(campaign.mtime)}' if campaign.is_terminated else begun


def _format_time(time: datetime) -> str:
    return time.astimezone().strftime('%Y-%m-%d %H:%M')


def _find_elements(campaign: orm.WorkChainNode) -> list[str]:
    """Return the elements of the walkers and of the sets that the campaign began with."""
    initial = campaign.inputs.initial
    sets = [initial.structures] if 'structures' in initial else []
    sets += list(initial.labels.values()) if 'labels' in initial else []
    walkers = (set(get_atoms(walker['structure']).symbols) for walker in campaign.inputs.walkers.values())
    return sorted({symbol for node in sets for symbol in node.symbols}.union(*walkers))


def get_atoms(structure: orm.StructureData | StructureSetData) -> Atoms:
    """Return the structure that a walker begins with."""
    return structure.get_atoms(0) if isinstance(structure, StructureSetData) else structure.get_ase()


def describe_theory(history: CampaignHistory) -> str:
    """Return the level of theory of the clusters in words; empty if none was asked for."""
    queued = (cluster for entry in history.rounds for cluster in entry.queued.values())
    return '; '.join(sorted({cluster.base.extras.get(EXTRA, {}).get('theory', '') for cluster in queued} - {''}))


def _describe_labels(campaign: orm.WorkChainNode, history: CampaignHistory) -> str:
    """Return the level of theory in words, and the labeller."""
    theory, labeller = describe_theory(history), campaign.inputs.label.workflow.value
    return f'{theory} ({labeller})' if theory else str(labeller)


def _describe_settings(inputs: Mapping[str, Any]) -> str:
    settings = inputs['settings'].get_dict() if 'settings' in inputs else {}
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    return ': ' + ', '.join(f'{key} = {value}' for key, value in sorted(plain.items())) if plain else ''


def _describe_validation(campaign: orm.WorkChainNode) -> str:
    if 'validation' not in campaign.inputs:
        return 'none was given'
    node = campaign.inputs.validation
    return f'{node.n_structures} structures with {node.n_atoms} atoms, {type(node).__name__} {node.pk}'


def _describe_convergence(campaign: orm.WorkChainNode) -> str:
    """Return in words when the campaign has converged, and when it gives up."""
    inputs = campaign.inputs
    wanted = ConvergenceSettings.load(inputs.convergence.get_dict() if 'convergence' in inputs else {})
    words = ['every walker runs to its end' + (f' {wanted.rounds} times in a row' if wanted.rounds > 1 else '')]
    if wanted.gamma is not None:
        words.append(f'γ at its quantile {wanted.gamma_quantile:g} is at most {wanted.gamma:g}')
    if wanted.flat_share is not None:
        words.append(
            f'given up if the error on the validation set falls by less than {100 * wanted.flat_share:g} % in '
            f'{wanted.flat_rounds} trainings'
        )
    return '; '.join(words)


def _describe_walker(walker: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Return formula and settings of a walker; ramps are written as begin to end."""
    values = {**shared, **(walker['settings'].get_dict() if 'settings' in walker else {})}
    formula = get_atoms(walker['structure']).get_chemical_formula()
    legs = [{name: values.get(name) for name in _OF_WALKERS}, *walker.get('schedule', [])]
    named = [
        ', '.join(f'{name} {_format_ramp(value)}' for name, value in leg.items() if value is not None) for leg in legs
    ]
    return f'{formula}, {"; then ".join(named)}'


def _format_ramp(value: Any) -> str:
    is_ramp = isinstance(value, Sequence) and not isinstance(value, str)
    return ' to '.join(f'{end:g}' for end in value) if is_ramp else str(value)
