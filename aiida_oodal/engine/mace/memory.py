"""How much memory is left, how much to evaluate at a time, and telling that it was too much."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiida_oodal.engine.errors import OodalError

from .graphs import Graph
from .models import MaceModel

__all__ = ['Budget', 'free_memory', 'is_out_of_memory', 'keep_freed_memory']

#: Edges per batch on a CPU: 2,000 to 7,000 are fastest, since more fall out of the cache (benchmarks/latents.py).
CPU_EDGES = 5_000
#: Share of free memory that is given away: the rest is for fragmentation and for the estimate's error.
_SHARE = 0.5
#: Most that is taken on a CPU [bytes]: other jobs of the node need memory too, and more than this makes nothing faster.
_MOST_ON_CPU = 8 * 10**9
#: What torch says on a CPU, by its own allocator and by C++.
_TOO_LITTLE = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc", re.IGNORECASE)
#: Less free memory than this is tight [bytes]: :func:`keep_freed_memory`.
_TIGHT = 4 * 10**9
#: Names of glibc's malloc.h for :func:`keep_freed_memory`.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_CGROUP = Path('/sys/fs/cgroup')
#: Limit and use of memory, cgroup version 2 and version 1; a job sees its own group here.
_CGROUP_FILES = (('memory.max', 'memory.current'), ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes'))


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system and asking anew.

    Tensors of a batch take tens to hundreds of MB. By default glibc maps and unmaps the large ones each time, and
    clearing fresh pages takes up to half of the time (``benchmarks/latents.py --part pages``). Nothing is changed where
    memory is tight, since freed memory is in pieces and the largest tensors may not fit into any, nor in other C
    libraries.
    """
    if free_memory() < _TIGHT:
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL('libc.so.6')
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never: man 3 mallopt


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, on a CPU or a GPU."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError, as are all others of torch
    return isinstance(error, RuntimeError) and _TOO_LITTLE.search(str(error)) is not None


def free_memory(device: str = 'cpu') -> int:
    """Return the bytes that this process may still take on ``cpu`` or ``cuda``.

    On a CPU the smallest of: what the system has, what the control group of the job allows, what ``ulimit -v`` allows.
    """
    if device == 'cuda':
        import torch

        free, _ = torch.cuda.mem_get_info()
        # what torch holds but does not use can be used again
        return int(free) + int(torch.cuda.memory_reserved()) - int(torch.cuda.memory_allocated())
    return min(_free_in_system(), _free_in_group(), _free_in_limit())


def _free_in_system() -> int:
    """Read ``MemAvailable``; systems without ``/proc`` give 4 GiB, a guess that a laptop can bear."""
    with contextlib.suppress(OSError):
        if match := re.search(r'MemAvailable:\s+(\d+) kB', Path('/proc/meminfo').read_text(encoding='ascii')):
            return int(match[1]) * 1024
    return 4 * 1024**3


def _free_in_group() -> int:
    """Return what the control group leaves; a group without limit leaves everything."""
    left = 2**62
    for limit, used in _CGROUP_FILES:
        # absent on this version, or the word "max"
        with contextlib.suppress(OSError, ValueError):
            left = min(left, int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text()))
    return max(left, 0)


def _free_in_limit() -> int:
    """Return what the limit of the address space leaves."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return 2**62
    size = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[0]) * resource.getpagesize()
    return max(int(limit) - size, 0)


@dataclass
class Budget:
    """How much is evaluated at a time; it shrinks when memory runs out and never grows again.

    :param edges: most edges of a batch of several structures.
    :param domain_edges: most edges of one structure that is evaluated as a whole.
    :param structures: most structures of a batch, whatever their edges; ``None`` for a budget of edges only.
    """

    edges: int
    domain_edges: int
    structures: int | None = None

    @classmethod
    def choose(
        cls,
        models: Sequence[MaceModel],
        *,
        edges: int | None = None,
        structures: int | None = None,
        domain_edges: int | None = None,
        forces: bool = False,
    ) -> Budget:
        """Take what was asked for, and the rest from the memory that is free now.

        :raises OodalError: if ``structures`` is given with ``edges``.
        """
        if edges is not None and structures is not None:
            raise OodalError(f'edges_per_batch = {edges} and batch_size = {structures} exclude each other')
        device = models[0].device
        free = int(_SHARE * free_memory(device))
        most = free if device == 'cuda' else min(free, _MOST_ON_CPU)
        fitting = most // max(model.bytes_per_edge(forces=forces) for model in models)
        if edges is None:
            edges = max(1, fitting) if device == 'cuda' else CPU_EDGES
        return cls(edges, domain_edges or max(1, fitting), structures)

    def is_full(self, graphs: Sequence[Graph], following: Graph) -> bool:
        """Tell whether one more graph would be too much; a batch takes one graph at least."""
        if not graphs:
            return False
        if self.structures is not None:
            return len(graphs) >= self.structures
        return sum(graph.n_edges for graph in graphs) + following.n_edges > self.edges

    def shrink(self, edges: int) -> None:
        """Remember that so many edges were too much."""
        self.domain_edges = max(1, min(self.domain_edges, edges // 2))
        self.edges = min(self.edges, self.domain_edges)
