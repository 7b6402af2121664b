"""What a campaign is given, looked at before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_oodal.data import get_structures
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_settings import AceFitSettings
from aiida_oodal.engine.md.settings import MdSettings, check_structure

from .carve import check_ensemble


def validate_campaign(inputs: Any, _: Any) -> str | None:
    """Refuse a campaign that cannot start, before anything is submitted."""
    initial = inputs.get('initial', {})
    if not initial:
        return 'give `initial.structures`, `initial.labels` or `initial.potential` to start from'
    if 'potential' not in initial and 'structures' not in initial and 'labels' not in initial:
        return 'without `initial.potential` give structures or labels that the first potential can be fitted to'
    walkers = inputs.get('walkers', {})
    if not walkers:
        return 'give at least one walker: walkers={"name": {"structure": node, "settings": Dict}}'
    for name, walker in walkers.items():
        missing = {'structure', 'settings'} - set(walker)
        if missing:
            return f'walker {name!r} lacks {", ".join(sorted(missing))}'
    if 'potential' in initial:
        elements, cutoff = initial['potential'].elements, initial['potential'].cutoff
    else:
        elements = sorted({symbol for node in initial.values() for symbol in node.symbols})
        cutoff = AceFitSettings.load(inputs['train']['settings'].get_dict()).cutoff
    try:
        CarveSettings.load(inputs['carve'].get_dict()).for_cutoff(cutoff)
    except OodalError as error:
        return f'carve: {error}'
    if problem := check_ensemble(inputs):
        return problem
    method = SelectSettings.load(inputs['select'].get_dict()).method if 'select' in inputs else 'maxvol'
    if method != 'maxvol' and not inputs.get('ensemble'):
        return (
            f'select: method = {method!r} chooses by latents: give `ensemble`, whose latents they are, or choose by '
            "'maxvol'"
        )
    problems = {name: _check_walker(walker, elements, cutoff) for name, walker in walkers.items()}
    return next((f'walker {name!r}: {problem}' for name, problem in problems.items() if problem), None)


def _check_walker(walker: Mapping[str, Any], elements: list[str], cutoff: float) -> str | None:
    """Hold a walker against the first potential, or against what that will be made of."""
    try:
        settings = MdSettings.load(walker['settings'].get_dict())
        check_structure(settings, get_structures(walker['structure'])[0], elements, cutoff, forces='embedded')
    except OodalError as error:
        return str(error)
    return None


def find_doubts(inputs: Mapping[str, Any]) -> list[str]:
    """Return what is allowed and yet not advised, a sentence each."""
    carve = CarveSettings.load(inputs['carve'].get_dict())
    train = AceFitSettings.load(inputs['train']['settings'].get_dict())
    if carve.shape == 'sphere' and train.weights == 'full':
        return [
            "carve shape 'sphere' with train weights 'full': the fit will learn the surfaces in the corners of the "
            "cells; use shape 'cube', or weights 'mask'"
        ]
    return []
