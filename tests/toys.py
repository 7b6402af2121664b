"""A labeller and a trainer of one class each, for campaigns in tests."""

from pathlib import Path

import numpy as np
from aiida import orm
from aiida.engine import WorkChain, calcfunction

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.queue import LevelOfTheory
from aiida_oodal.workchains.label.base import LabelJob, LabelWorkChain
from aiida_oodal.workchains.train.base import Forecast, TrainWorkChain

ACE_AL = Path(__file__).parent / 'data' / 'ace-al'


@calcfunction
def pull_to_origin(stiffness, **structures):
    """Label structures by springs to where their cell begins."""
    frames = []
    for key, node in structures.items():
        atoms = node.get_ase()
        atoms.info |= {'queue_key': key, 'REF_energy': float(stiffness.value * np.sum(atoms.positions**2) / 2)}
        atoms.arrays['REF_forces'] = -stiffness.value * atoms.positions
        frames.append(atoms)
    return {'labels': StructureSetData(frames)}


class PullWorkChain(WorkChain):
    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('stiffness', valid_type=orm.Float)
        spec.input_namespace('structures', dynamic=True, valid_type=orm.StructureData)
        spec.outline(cls.pull)
        spec.output('labels', valid_type=StructureSetData)

    def pull(self):
        self.out_many(pull_to_origin(self.inputs.stiffness, **self.inputs.structures))


class ToyLabelWorkChain(LabelWorkChain):
    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('stiffness', valid_type=orm.Float)

    @classmethod
    def get_builder_from_protocol(cls, *, overrides=None, **_):
        builder = cls.get_builder()
        builder.stiffness = orm.Float((overrides or {}).get('stiffness', 1.0))
        return builder

    @classmethod
    def get_level(cls, inputs):
        return LevelOfTheory('oodal.label.toy', {'stiffness': inputs['stiffness'].value})

    def make_jobs(self, nodes):
        for key, node in nodes.items():
            inputs = {'stiffness': self.inputs.stiffness, 'structures': {key: node}}
            yield LabelJob(PullWorkChain, inputs, [key])

    @classmethod
    def read_labels(cls, process, keys):
        return process.outputs.labels, {}


@calcfunction
def learn(basis, forgetful, **labels):
    """Return a potential that was fitted elsewhere, how many labels it was shown, and made-up errors."""
    count = sum(node.n_structures for node in labels.values())
    errors = {name: 30.0 if forgetful.value and len(labels) > 1 else 20.0 for name in labels}
    parts = {name: {'role': 'training', 'force_rmse': error} for name, error in errors.items()}
    return {'potential': basis.clone(), 'results': orm.Dict({'n_labels': count, 'parts': parts})}


class ToyTrainWorkChain(TrainWorkChain):
    """Learns nothing and, if ``forgetful``, says that with more than one set it is worse on each.

    ``curable``: whether there are inputs with which it is not forgetful.
    """

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('basis', valid_type=AcePotentialData)
        spec.input('forgetful', valid_type=orm.Bool, default=lambda: orm.Bool(False))
        spec.input('curable', valid_type=orm.Bool, default=lambda: orm.Bool(False))
        spec.outline(cls.train)

    @classmethod
    def get_builder_from_protocol(cls, *, overrides=None, **_):
        builder = cls.get_builder()
        builder.basis = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi').store()
        for name, value in (overrides or {}).items():
            builder[name] = orm.Bool(value)
        return builder

    @classmethod
    def forecast(cls, inputs, symbols):
        return Forecast(['Al'], inputs['basis'].cutoff)

    @classmethod
    def stricter(cls, inputs, parts):
        assert set(parts) <= set(inputs['labels'])
        return {'forgetful': orm.Bool(False)} if inputs.get('curable') else None

    def train(self):
        outputs, _ = self.run_once(
            'learn', learn, basis=self.inputs.basis, forgetful=self.inputs.forgetful, **self.inputs.labels
        )
        self.out('learned', {'potential': outputs['potential']})
        self.out('results', outputs['results'])
