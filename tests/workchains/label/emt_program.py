"""A user's own program: reads an extended XYZ, labels it with EMT of plain ASE, writes JSON."""

import json
import sys

import ase.io
from ase.calculators.emt import EMT

atoms = ase.io.read(sys.argv[1], format='extxyz')
atoms.calc = EMT(asap_cutoff=False)
label = {'energy': atoms.get_potential_energy(), 'forces': atoms.get_forces().tolist()}
label['stress'] = atoms.get_stress().tolist()
print(json.dumps(label))
