"""The figures of a screening for print: latent map, distributions, score against error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.analysis.maps import Method
from aiida_oodal.engine.errors import OodalError

from .content import ScreenView
from .data import MAP_NAMES
from .drawing import (
    QUADRANT_COLORS,
    QUADRANT_NAMES,
    UNITS,
    DrawnMap,
    ScreenDrawing,
    distribution,
    draw_screen,
    rank_correlation,
)

FloatArray = NDArray[np.float64]

#: Width of two columns of a journal, inches.
_WIDTH = 7.0
_DPI = 300


def write_screen_plots(
    view: ScreenView,
    folder: Path,
    formats: Sequence[str] = ('png',),
    *,
    kinds: Sequence[Method] | None = None,
    max_points: int = 2000,
    seed: int = 0,
) -> list[Path]:
    """Write all figures of a screening, named ``<figure>[_<reference>].<format>``.

    ``map_pca``, ``map_tsne`` (and ``map_umap``): coloured by set, by the score and by quadrant; ``distributions``:
    every score by set; ``errors``: every score against the true error, if there are labels.

    :param folder: is made.
    :param formats: ``png`` (300 dpi), ``pdf``, ``svg``.
    :param kinds: of map; all that can be made here if not given.
    :param max_points: structures shown on maps and against errors, shared fairly among the sets.
    :return: absolute paths.
    :raises OodalError: if matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OodalError('figures for print need matplotlib: pip install matplotlib') from error
    drawing = draw_screen(view, kinds=kinds, max_points=max_points, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in _figures(drawing):
        # No pyplot: it keeps figures, and may look for a screen.
        figure = Figure(layout='constrained')
        FigureCanvasAgg(figure)
        draw(figure)
        for extension in formats:
            path = folder / f'{name}.{extension}'
            figure.savefig(path, dpi=_DPI)
            paths.append(path.resolve())
    return paths


def _figures(drawing: ScreenDrawing) -> Iterator[tuple[str, Any]]:
    """Go through the figures: name, and what draws it."""
    for reference in drawing.view.references:
        suffix = f'_{reference}' if len(drawing.view.references) > 1 else ''
        for kind, drawn in drawing.maps[reference].items():
            yield f'map_{kind}{suffix}', lambda figure, r=reference, d=drawn: _draw_maps(figure, drawing, r, d)
        yield f'distributions{suffix}', lambda figure, r=reference: _draw_distributions(figure, drawing, r)
        if drawing.errors():
            yield f'errors{suffix}', lambda figure, r=reference: _draw_errors(figure, drawing, r)


def _draw_maps(figure: Any, drawing: ScreenDrawing, reference: str, drawn: DrawnMap) -> None:
    """Draw a map three times: coloured by set, by score, by quadrant."""
    view = drawing.view
    figure.set_size_inches(_WIDTH, 2.9)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    x, y = drawn.latent_map.coordinates.T
    for panel in axes:
        panel.contour(
            drawn.density.grid.x,
            drawn.density.grid.y,
            drawn.density.log_density,
            levels=np.unique(drawn.density.levels),
            colors='#666666',
            linewidths=0.6,
            linestyles='solid',
        )
        panel.set_xlabel(drawn.latent_map.axes[0], fontsize=7)
    axes[0].set_ylabel(drawn.latent_map.axes[1], fontsize=7)
    dots: dict[str, Any] = {'s': 5, 'linewidths': 0}
    owner = drawing.set_of[drawn.rows]
    for number, entry in enumerate(view.sets):
        own = owner == number
        if own.any():
            axes[0].scatter(x[own], y[own], color=drawing.colors[number], label=entry.name, **dots)
    metric = view.judged_by(reference)[0]
    kind = view.aggregate_of(view.targets[0], reference, metric)
    values = drawing.score(reference, metric, kind)[drawn.rows]
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.99]) if len(finite) else (0.0, 1.0)
    points = axes[1].scatter(x, y, c=np.clip(values, low, high), cmap='viridis', **dots)
    bar = figure.colorbar(points, ax=axes[1], location='top', shrink=0.9)
    bar.set_label(f'{metric} ({kind})', fontsize=7)
    bar.ax.tick_params(labelsize=6)
    quadrant = drawing.quadrant(reference)[drawn.rows]
    for number, name in enumerate(QUADRANT_NAMES):
        own = quadrant == number
        if own.any():
            axes[2].scatter(x[own], y[own], color=QUADRANT_COLORS[number], label=name, **dots)
    for panel in (axes[0], axes[2]):
        _legend_above(panel)
    _small_ticks(axes)
    figure.suptitle(
        f'{MAP_NAMES[drawn.latent_map.method]} of {len(x)} structures; contours enclose 50, 90, 99 % of '
        f'{drawn.density_of}',
        fontsize=7,
    )


def _draw_distributions(figure: Any, drawing: ScreenDrawing, reference: str) -> None:
    """Draw the distribution of every score, a panel each."""
    view = drawing.view
    metrics = view.metrics(reference)
    panels = _panels(figure, len(metrics))
    colors = dict(zip([entry.name for entry in view.sets], drawing.colors, strict=True))
    for panel, metric in zip(panels, metrics, strict=False):
        kind = view.aggregate_of(next(view.scored(reference))[0], reference, metric)
        found = distribution(view, reference, metric, kind)
        for name, shares in found.shares.items():
            panel.stairs(shares, found.edges, color=colors[name], linewidth=1.0, label=name)
        for style, threshold in zip((':', '--', '-'), found.thresholds.values(), strict=True):
            panel.axvline(threshold, color='#555555', linestyle=style, linewidth=0.7)
        if found.logarithmic:
            panel.set_xscale('log')
        panel.set_xlabel(f'{metric} ({kind}){UNITS.get(metric, "")}', fontsize=7)
    _finish(
        figure,
        panels,
        len(metrics),
        'share of the set',
        'Lines: thresholds at 90, 95 and 99 % of the held-out structures',
    )


def _draw_errors(figure: Any, drawing: ScreenDrawing, reference: str) -> None:
    """Draw every score against the first true error that there is, a panel each."""
    view = drawing.view
    name, truth = next(iter(drawing.errors().items()))
    metrics = view.metrics(reference)
    panels = _panels(figure, len(metrics))
    for panel, metric in zip(panels, metrics, strict=False):
        kind = view.aggregate_of(next(view.scored(reference))[0], reference, metric)
        score = drawing.score(reference, metric, kind)
        known = np.isfinite(truth) & np.isfinite(score)
        for number, entry in enumerate(view.sets):
            own = known & (drawing.set_of == number)
            if own.any():
                panel.scatter(score[own], truth[own], s=4, linewidths=0, color=drawing.colors[number], label=entry.name)
        rho = rank_correlation(view, name, reference, metric, kind)
        best = rho.get('all targets', next((rho[entry.name] for entry in view.targets if entry.name in rho), None))
        if best is not None:
            panel.set_title(f'Spearman ρ of the targets {best:.2f}', fontsize=7)
        if distribution(view, reference, metric, kind).logarithmic:
            panel.set_xscale('log')
        panel.set_xlabel(f'{metric} ({kind}){UNITS.get(metric, "")}', fontsize=7)
    _finish(figure, panels, len(metrics), f'true {name}', '')


def _panels(figure: Any, n: int) -> list[Any]:
    columns = min(n, 3)
    rows = -(-n // columns)
    figure.set_size_inches(_WIDTH, 0.5 + 2.0 * rows)
    return list(np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel()))


def _finish(figure: Any, panels: list[Any], n: int, label: str, title: str) -> None:
    for panel in panels[n:]:
        panel.set_visible(False)
    columns = min(n, 3)
    for panel in panels[:n:columns]:
        panel.set_ylabel(label, fontsize=7)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc='outside upper center',
        ncols=6,
        fontsize=7,
        frameon=False,
        title=title or None,
        title_fontsize=7,
    )
    _small_ticks(panels[:n])


def _legend_above(panel: Any) -> None:
    panel.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=6, frameon=False, markerscale=1.6)


def _small_ticks(panels: Iterable[Any]) -> None:
    for panel in panels:
        panel.tick_params(labelsize=6)
