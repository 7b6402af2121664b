"""Names under which labels are stored in structures; MACE's defaults, and ASE's extxyz reader leaves them alone."""

#: ``info``: energy that the forces are the derivative of, eV.
ENERGY = 'REF_energy'
#: Per-atom array, shape ``(n_atoms, 3)``, eV/angstrom.
FORCES = 'REF_forces'
#: ``info``: shape ``(6,)``, Voigt order xx yy zz yz xz xy, eV/angstrom^3, ASE's sign.
STRESS = 'REF_stress'
#: ``info``: key of the queue entry that the label belongs to.
QUEUE_KEY = 'queue_key'
#: ``info``: hash of the level of theory of the label.
LEVEL = 'level_of_theory'
#: ``info``: in a set that several were packed into, name of the one that the structure comes from.
LABELLED_SET = 'labelled_set'
#: Part of the training data that a campaign labels before its first round.
AWAITED = 'start'
#: Shape of each label of one structure (of one atom for forces).
LABEL_SHAPES: dict[str, tuple[int, ...]] = {ENERGY: (), FORCES: (3,), STRESS: (6,)}
