"""A picture of the provenance of a potential: for some rounds, the way of one label into it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .provenance import Link

#: Rows at most, and the places of columns and rows, in pixels.
_MOST_ROWS = 6
_WIDTH, _BOX, _HEIGHT, _ROW = 150, 128, 44, 76


@dataclass(frozen=True)
class Box:
    """A node of the picture, as AiiDA draws it: data as an ellipse, a process as a rectangle.

    :param x: of its centre, pixels.
    :param y: likewise.
    """

    x: int
    y: int
    title: str
    detail: str
    is_process: bool = False


@dataclass(frozen=True)
class Picture:
    """Boxes, and the arrows between them as ``(x1, y1, x2, y2)``, in pixels."""

    width: int
    height: int
    box: tuple[int, int]
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int, int, int], ...]


def draw_provenance(chain: Sequence[Link]) -> Picture | None:
    """Draw how labels came into the last potential, one for each potential that was ignorant: that with the largest γ.

    :param chain: of :func:`.trace_potential`.
    :return: None if there is nothing to draw.
    """
    worst: dict[int, Link] = {}
    for link in chain:
        if link.ignorant not in worst or (link.gamma or 0.0) > (worst[link.ignorant].gamma or 0.0):
            worst[link.ignorant] = link
    links = list(worst.values())
    if not links:
        return None
    rows = np.unique(np.linspace(0, len(links) - 1, min(len(links), _MOST_ROWS)).round().astype(int))
    boxes: list[Box] = []
    arrows: list[tuple[int, int, int, int]] = []
    height = _ROW * len(rows)
    for number, index in enumerate(rows):
        y = _ROW * number + _ROW // 2
        row = [Box(_place(column), y, *told) for column, told in enumerate(_tell(links[index]))]
        boxes += row
        arrows += [(left.x + _BOX // 2, y, right.x - _BOX // 2, y) for left, right in itertools.pairwise(row)]
    end = Box(_place(5), height // 2, 'potential', f'PK {links[-1].potential}, the last')
    arrows += [(_place(4) + _BOX // 2, box.y, end.x - _BOX // 2, end.y) for box in boxes if box.x == _place(4)]
    return Picture(6 * _WIDTH, height, (_BOX, _HEIGHT), (*boxes, end), tuple(arrows))


def _place(column: int) -> int:
    return _WIDTH * column + _WIDTH // 2


def _tell(link: Link) -> list[tuple[str, str, bool]]:
    """Return title and detail of the boxes of a row, and whether each is a process."""
    step = '' if link.step is None else f', step {link.step}'
    gamma = '' if link.gamma is None else f', γ {link.gamma:.2f}'
    return [
        ('potential', f'PK {link.ignorant}', False),
        ('MD', 'not known' if link.md is None else f'PK {link.md}', True),
        ('frame', f'PK {link.snapshots}{step}', False),
        ('cluster', f'PK {link.cluster}{gamma}', False),
        ('labels', f'PK {link.labels}', False),
    ]
