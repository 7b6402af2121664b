"""A launch script: three cells labelled by the code ``pw`` on ``localhost``, two at once, seconds for each SCF."""

import sys
from pathlib import Path

from aiida.orm import load_code
from aiida_pseudo.data.pseudo import UpfData
from aiida_pseudo.groups.family import PseudoPotentialFamily
from ase.build import bulk

from aiida_oodal.data import StructureSetData
from aiida_oodal.operations.computers import find_computer
from aiida_oodal.operations.launch import submit_once
from aiida_oodal.workchains.label.pw import PwLabelWorkChain


def make_frames():
    frames = []
    for seed in (1, 2, 3):
        frames.append(bulk('Al', a=4.0, cubic=True).repeat((2, 1, 1)))
        frames[-1].rattle(0.1, seed=seed)
    return frames


def build(family):
    builder = PwLabelWorkChain.get_builder_from_protocol(
        code=load_code('pw@localhost'),
        computer=find_computer('localhost'),
        protocol='quick',
        overrides={
            'elements': ['Al'],
            'batch_size': 2,
            'workflow': {
                'pseudo_family': family,
                'kpoints_distance': 0.6,
                'pw': {
                    'parameters': {
                        'SYSTEM': {'ecutwfc': 20.0, 'ecutrho': 80.0, 'nbnd': 20, 'nosym': True, 'noinv': True}
                    }
                },
            },
        },
        options={'withmpi': False},
    )
    builder.structures = StructureSetData(make_frames())
    return builder


family = PseudoPotentialFamily.create_from_folder(Path(sys.argv[1]), 'vbc', pseudo_type=UpfData)
process = submit_once('small: labels', lambda: build(family.label))
