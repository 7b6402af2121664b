"""What can be chosen in the training of a MACE model, checked when a job is prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from aiida_oodal.engine.settings import Settings

from .arguments import check_arguments

__all__ = ('PROTOCOLS', 'MaceTrainSettings')

_SHIFT = (
    'it adds a constant to the energy of every atom, the mean over the training set: an isolated atom then has almost '
    'the energy of one in a crystal, and MD at constant pressure evaporates what it should not'
)
#: What the three protocols have in common. The weights and the fall of the learning rate were tried on small models.
_COMMON = {
    'num_interactions': 2,
    'energy_weight': 100.0,
    'forces_weight': 100.0,
    'stress_weight': 1e4,
    'ema': True,
    'ema_decay': 0.99,
    'scheduler': 'ExponentialLR',
    'valid_batch_size': 10,
}
#: By name: settings, and MACE arguments under ``arguments``.
PROTOCOLS: dict[str, dict[str, Any]] = {
    # minutes on one CPU core: for tests, examples and first rounds of simple metals
    'quick': {
        'updates': 1200,
        'batch_size': 2,
        'learning_rate': 0.01,
        'precision': 'float32',
        'arguments': _COMMON
        | {
            'r_max': 4.5,
            'num_channels': 16,
            'max_L': 0,
            'max_ell': 2,
            'correlation': 2,
            'num_radial_basis': 6,
            'radial_MLP': [16, 16],
            'MLP_irreps': '8x0e',
        },
    },
    # for rounds of a campaign on a GPU
    'balanced': {
        'updates': 20_000,
        'batch_size': 5,
        'learning_rate': 0.01,
        'precision': 'float32',
        'arguments': _COMMON
        | {
            'r_max': 5.0,
            'num_channels': 64,
            'max_L': 0,
            'max_ell': 3,
            'correlation': 3,
            'num_radial_basis': 8,
            'radial_MLP': [64, 64, 64],
            'MLP_irreps': '16x0e',
        },
    },
    # for the model that is kept
    'careful': {
        'updates': 100_000,
        'batch_size': 5,
        'learning_rate': 0.01,
        'precision': 'float64',
        'arguments': _COMMON
        | {
            'r_max': 6.0,
            'num_channels': 128,
            'max_L': 1,
            'max_ell': 3,
            'correlation': 3,
            'num_radial_basis': 10,
            'radial_MLP': [64, 64, 64],
            'MLP_irreps': '16x0e',
            'ema_decay': 0.995,
        },
    },
}
#: MACE arguments that the job gives itself, and what to use instead.
_OWN = {
    **dict.fromkeys(('batch_size', 'freeze'), 'use the setting of the same name'),
    'lr': 'use the setting learning_rate',
    'lr_scheduler_gamma': 'use the setting final_learning_rate',
    'max_num_epochs': 'training is counted in updates: use the setting updates',
    'eval_interval': 'use the setting evaluations',
    'default_dtype': 'use the setting precision',
    'device': 'use the setting device',
    'E0s': 'use the setting E0s',
    'seed': 'use the input seed (of a campaign `seeds`, beside `settings`)',
    'foundation_model': 'use the input start (of a campaign `foundation` and `start_from`, beside `settings`)',
    'multiheads_finetuning': 'use the inputs start and replay of a training job; campaigns have no replay',
    **dict.fromkeys(('pt_train_file', 'pt_valid_file'), 'use the input replay'),
    'restart_latest': 'use the input parent_folder',
    **dict.fromkeys(
        ('train_file', 'valid_file', 'valid_fraction', 'test_file', 'test_dir', 'heads', 'statistics_file', 'config'),
        'use the inputs training and validation',
    ),
    **dict.fromkeys(
        ('name', 'work_dir', 'log_dir', 'model_dir', 'checkpoints_dir', 'results_dir', 'downloads_dir', 'log_level'),
        'the job decides where its files lie',
    ),
    **dict.fromkeys(
        ('energy_key', 'forces_key', 'stress_key', 'virials_key', 'head_key'),
        'labels have the names REF_energy, REF_forces and REF_stress',
    ),
    **dict.fromkeys(('distributed', 'launcher'), 'a job trains one model on one device'),
    **dict.fromkeys(
        ('keep_checkpoints', 'save_all_checkpoints'), 'mace_run_train would take the last checkpoint for the best one'
    ),
    'patience': 'mace_run_train counts it and goes on all the same: use the setting updates',
    'lbfgs': 'its epochs cannot be counted in updates',
    **dict.fromkeys(('compute_forces', 'compute_stress'), 'forces are always trained, stresses where there are labels'),
    **dict.fromkeys(('plot', 'plot_frequency', 'plot_interaction_e', 'dry_run', 'save_cpu'), 'the job sets it itself'),
    'les_arguments': 'it names a file, which the job does not have',
}
#: What says the same as `hidden_irreps`, and would win over it.
_SHAPE = ('num_channels', 'max_L')
_LOSSES = ('weighted', 'stress', 'universal')


class MaceTrainSettings(Settings):
    """How one MACE model is trained; what is not given is that of the protocol.

    Elements are not a setting: they are those of the training data.
    """

    TITLE: ClassVar[str] = 'MACE training settings'

    protocol: Literal['quick', 'balanced', 'careful'] = Field('balanced', description='Name of a set of defaults.')
    updates: int = Field(ge=1, le=10**8, description='Steps of the optimizer, rounded up to whole epochs.')
    batch_size: int = Field(ge=1, le=10**5, description='Structures per update.')
    learning_rate: float = Field(gt=0.0, le=1.0, description='Learning rate of the first epoch.')
    final_learning_rate: float = Field(
        0.05,
        gt=0.0,
        le=1.0,
        description='Learning rate of the last epoch as a share of the first; falls exponentially.',
    )
    evaluations: int = Field(
        20, ge=1, le=10_000, description='How often, at least, the validation set is evaluated; the best model is kept.'
    )
    precision: Literal['float32', 'float64'] = Field(description='Floating point type of training and model.')
    device: Literal['auto', 'cpu', 'cuda'] = Field('auto', description='Where to train; auto: a GPU if there is one.')
    weights: Literal['full', 'mask', 'downweight'] = Field(
        'full',
        description='What force_mask means. full: nothing. mask: forces outside the core weigh 0, and so do energies '
        'and stresses of structures that have such atoms. downweight: they weigh "downweight".',
    )
    downweight: float = Field(0.1, gt=0.0, lt=1.0, description='Weight of buffer atoms where weights = downweight.')
    E0s: dict[str, float] | Literal['foundation'] = Field(
        default_factory=dict,
        description='Energy [eV] of an isolated atom of each element, for elements of which the training data have no '
        'isolated atom. foundation: those of the model that training starts from.',
    )
    freeze: Literal['nothing', 'embedding', 'interactions', 'products'] = Field(
        'nothing',
        description='What stays as it is in the model that training starts from: embedding; also the weights of the '
        'interactions; also those of the products, so that only the readouts are trained.',
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='Any other argument of mace_run_train by its name; null for its own default.'
    )

    @model_validator(mode='before')
    @classmethod
    def _fill_from_protocol(cls, values: dict[str, Any]) -> dict[str, Any]:
        default = cls.model_fields['protocol'].default
        # of an unknown one pydantic says which there are
        protocol = PROTOCOLS.get(str(values.get('protocol', default)), PROTOCOLS[default])
        given = {key: value for key, value in values.items() if value is not None}
        return {key: value for key, value in protocol.items() if key != 'arguments'} | given

    @field_validator('E0s', mode='before')
    @classmethod
    def _energies_of_isolated_atoms(cls, value: Any) -> Any:
        if value in ('average', 'estimated'):
            raise ValueError(
                'a least-squares fit of the composition puts the cohesive energy into E0s: an isolated atom then has '
                'the energy of one in a crystal, and MD evaporates what it should not. Compute one free atom of each '
                'element with the method that labels'
            )
        unknown = [symbol for symbol in value if symbol not in atomic_numbers] if isinstance(value, Mapping) else []
        if any(str(symbol).isdigit() for symbol in unknown):
            raise ValueError(f'{unknown[0]} is an atomic number: give energies by symbol, such as {{"Cu": -0.1}}')
        if unknown:
            raise ValueError(f'{", ".join(map(str, unknown))} is no element')
        return value

    @field_validator('overrides')
    @classmethod
    def _known_to_mace(cls, value: dict[str, Any]) -> dict[str, Any]:
        problems = [f'{name}: {_OWN[name]}' for name in value if name in _OWN]
        problems += check_arguments({name: given for name, given in value.items() if name not in _OWN})
        if value.get('model', 'MACE') == 'ScaleShiftMACE':
            problems.append(f'model = ScaleShiftMACE is refused: {_SHIFT}. Use MACE')
        elif value.get('model', 'MACE') not in ('MACE', None):
            problems.append(f'model = {value["model"]!r}: only MACE is trained here')
        if value.get('loss') not in (*_LOSSES, None):
            problems.append(
                f'loss = {value["loss"]!r}: use {", ".join(_LOSSES)}; others leave out energies or forces, or train on '
                'a label that is missing as if it were zero'
            )
        if value.get('hidden_irreps') and (twice := [name for name in _SHAPE if value.get(name) is not None]):
            problems.append(f'hidden_irreps and {", ".join(twice)} say the same: give one of them')
        if problems:
            raise ValueError('; '.join(problems))
        return value

    @model_validator(mode='after')
    def _stage_two_knows_no_mask(self) -> Self:
        stage_two = [name for name in ('swa', 'stage_two', 'start_swa', 'start_stage_two') if self.overrides.get(name)]
        if stage_two and self.weights != 'full':
            raise ValueError(
                f'{stage_two[0]} and weights = {self.weights!r} exclude each other: the loss of stage two knows no '
                "weights of atoms; leave stage two out, or set weights = 'full'"
            )
        return self

    def to_values(self) -> dict[str, Any]:
        """Return what the job file takes: all settings, and all MACE arguments under ``arguments``."""
        values = self.model_dump(mode='json', exclude={'protocol', 'overrides'})
        shape = dict.fromkeys(_SHAPE) if self.overrides.get('hidden_irreps') else {}
        arguments = {**PROTOCOLS[self.protocol]['arguments'], **shape, **self.overrides, 'model': 'MACE'}
        return values | {'arguments': arguments}
