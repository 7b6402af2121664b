"""What a paper that uses a campaign has to cite, as text and as BibTeX."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """A publication.

    :param authors: as BibTeX writes them, ``Family, Given and Family, Given``; ``others`` for the rest.
    :param pages: or the number of the article.
    """

    key: str
    authors: str
    title: str
    journal: str
    volume: str
    pages: str
    year: int
    doi: str = ''

    @property
    def text(self) -> str:
        """The citation as a line of a list of references."""
        names = [' '.join(reversed(name.split(', '))) for name in self.authors.split(' and ')]
        authors = ', '.join(names[:-1]) + f' and {names[-1]}' if len(names) > 1 else names[0]
        doi = f', doi:{self.doi}' if self.doi else ''
        return f'{authors}, {self.title}, {self.journal} {self.volume}, {self.pages} ({self.year}){doi}.'

    @property
    def bibtex(self) -> str:
        """The citation as an entry of a BibTeX file."""
        fields = {
            'author': self.authors,
            'title': f'{{{self.title}}}',
            'journal': self.journal,
            'volume': self.volume,
            'pages': self.pages.replace('–', '--'),
            'year': str(self.year),
            'doi': self.doi,
        }
        lines = [f'  {name} = {{{value}}}' for name, value in fields.items() if value]
        return f'@article{{{self.key},\n' + ',\n'.join(lines) + '\n}'


CITATIONS = {
    citation.key: citation
    for citation in (
        Citation(
            'aiida',
            'Huber, S. P. and others',
            'AiiDA 1.0, a scalable computational infrastructure for automated reproducible workflows and data '
            'provenance',
            'Scientific Data',
            '7',
            '300',
            2020,
            '10.1038/s41597-020-00638-4',
        ),
        Citation(
            'ace',
            'Drautz, R.',
            'Atomic cluster expansion for accurate and transferable interatomic potentials',
            'Physical Review B',
            '99',
            '014104',
            2019,
            '10.1103/PhysRevB.99.014104',
        ),
        Citation(
            'active_learning',
            'Lysogorskiy, Y. and Bochkarev, A. and Mrovec, M. and Drautz, R.',
            'Active learning strategies for atomic cluster expansion models',
            'Physical Review Materials',
            '7',
            '043801',
            2023,
            '10.1103/PhysRevMaterials.7.043801',
        ),
        Citation(
            'd_optimality',
            'Podryabinkin, E. V. and Shapeev, A. V.',
            'Active learning of linearly parametrized interatomic potentials',
            'Computational Materials Science',
            '140',
            '171–180',
            2017,
            '10.1016/j.commatsci.2017.08.031',
        ),
        Citation(
            'mace',
            'Batatia, I. and Kovács, D. P. and Simm, G. N. C. and Ortner, C. and Csányi, G.',
            'MACE: Higher order equivariant message passing neural networks for fast and accurate force fields',
            'Advances in Neural Information Processing Systems',
            '35',
            '11423–11436',
            2022,
        ),
        Citation(
            'lammps',
            'Thompson, A. P. and others',
            'LAMMPS - a flexible simulation tool for particle-based materials modeling at the atomic, meso, and '
            'continuum scales',
            'Computer Physics Communications',
            '271',
            '108171',
            2022,
            '10.1016/j.cpc.2021.108171',
        ),
        Citation(
            'ase',
            'Larsen, A. H. and others',
            'The atomic simulation environment—a Python library for working with atoms',
            'Journal of Physics: Condensed Matter',
            '29',
            '273002',
            2017,
            '10.1088/1361-648X/aa680e',
        ),
        Citation(
            'quantum_espresso',
            'Giannozzi, P. and others',
            'Advanced capabilities for materials modelling with Quantum ESPRESSO',
            'Journal of Physics: Condensed Matter',
            '29',
            '465901',
            2017,
            '10.1088/1361-648X/aa8f79',
        ),
    )
}


class References:
    """The list of references of a text, numbered in the order in which they are cited."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def cite(self, *keys: str) -> str:
        """Return the numbers of publications in brackets, ``[2, 3]``.

        :param keys: of :data:`CITATIONS`.
        """
        self._keys += [key for key in keys if key not in self._keys]
        return f'[{", ".join(str(self._keys.index(key) + 1) for key in keys)}]'

    @property
    def cited(self) -> tuple[Citation, ...]:
        """The publications that were cited, in the order of their numbers."""
        return tuple(CITATIONS[key] for key in self._keys)
