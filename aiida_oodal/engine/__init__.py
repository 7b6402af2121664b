"""Science on arrays and :class:`ase.Atoms`, without AiiDA: this package is what runs on a compute node.

It travels with every job inside a ``PortableCode`` and is called as ``python -m aiida_oodal.engine COMMAND JOB.json``.
"""

#: Number of the format of job files. It is raised when an engine of before would misread a job that is written now, and
#: it is stored with every code made of the engine, so that a job is written as its engine reads it.
#: 0: a job of latents has all structures of the set; 1: it may have only those from ``first`` on.
JOB_FORMAT = 1
