"""Engine command ``latents``: a file of structures and an ensemble of MACE models in, latents of every atom out."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.stream import StructureStream

from .latents import LatentsRun
from .latents_files import Columns, LatentsFiles
from .latents_settings import LatentsSettings
from .memory import Budget, keep_freed_memory
from .models import MaceModel, check_ensemble, open_model


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Evaluate ``job['structures']`` by every model of ``job['models']``.

    The job: ``structures``, a file that :class:`.StructureStream` reads; ``models``, ``{label: file}``; ``settings``,
    those of :class:`.LatentsSettings`; ``start`` (0) and ``stop`` (null), the range of structures that
    are this job's; ``first`` (0), the number in the set of the first structure of the file, if that holds a part of it.
    Writes the files of :class:`.LatentsFiles`; ``results.json`` has ``models`` (what each says about itself),
    ``settings``, ``start``, ``stop``, ``device``, ``budget`` (edges of a batch and of a domain, as they were in the
    end), ``n_structures`` and ``n_atoms`` evaluated, ``failures`` (``structure``, ``line``, ``model``, ``message``),
    ``next_structure`` (null: complete) and ``timings`` in seconds. What a killed job leaves is made whole by
    :func:`.finish_interrupted`.

    :raises OodalError: if a file or a setting is missing, the models are no ensemble, or not one structure could be
        evaluated.
    """
    settings = _check_job(job)
    keep_freed_memory()
    first, start = int(job.get('first', 0)), int(job.get('start', 0))
    stream = StructureStream(folder / job['structures'], start=start, stop=job.get('stop'), first=first)
    models = _open_models(job['models'], folder, settings)
    device, forces = next(iter(models.values())).device, settings.forces
    budget = Budget.choose(
        list(models.values()),
        edges=settings.edges_per_batch,
        structures=settings.batch_size,
        domain_edges=settings.max_edges,
        forces=forces,
    )
    print(f'{len(models)} models on {device} ({platform.node()}), {budget.edges} edges a batch', flush=True)
    header = {
        'models': {label: model.info.as_dict() | {'n_features': len(model.columns)} for label, model in models.items()},
        'settings': settings.plain(),
        'start': stream.start,
        'stop': job.get('stop'),
        'device': device,
    }
    columns = {label: Columns(len(model.columns), model.stored_dtype, forces) for label, model in models.items()}
    with LatentsFiles(folder, columns, header) as files:
        run = LatentsRun(models, files, budget, forces=forces, report=lambda line: print(line, flush=True))
        run.run(stream)
        files.complete(run.timings, budget={'edges': budget.edges, 'domain_edges': budget.domain_edges})
    print(run.summary(), flush=True)
    if not files.n_structures:
        reason = files.failures[0]['message'] if files.failures else 'there are none in this range'
        raise OodalError(
            f'{job["structures"]}: no structure from {stream.start} to {job.get("stop") or "the end"} could be '
            f'evaluated; the first: {reason}'
        )


def _check_job(job: Mapping[str, Any]) -> LatentsSettings:
    """Return the settings of a job that lacks nothing."""
    needed = 'it needs "structures" (a file), "models" ({label: file}) and "settings"'
    for key in ('structures', 'models', 'settings'):
        if not job.get(key):
            raise OodalError(f'the latents job lacks {key!r}: {needed}')
    return LatentsSettings.read(job['settings'])


def _open_models(paths: Mapping[str, str], folder: Path, settings: LatentsSettings) -> dict[str, MaceModel]:
    """Open all models of an ensemble."""
    models = {
        label: open_model(
            folder / path,
            label=label,
            layers=settings.layers,
            precision=settings.precision,
            device=settings.device,
            head=settings.head,
        )
        for label, path in paths.items()
    }
    check_ensemble({label: model.info for label, model in models.items()})
    return models
