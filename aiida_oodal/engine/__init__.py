"""Science on arrays and :class:`ase.Atoms`, without AiiDA: this package is what runs on a compute node.

It travels with every job inside a ``PortableCode`` and is called as ``python -m aiida_oodal.engine COMMAND JOB.json``.
"""
