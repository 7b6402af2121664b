"""Train one MACE model on labelled structures; a job for each seed of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode, calcfunction

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser, require_file
from aiida_oodal.data import LatentsData, MaceModelData, StructureSetData
from aiida_oodal.engine.files import RESULTS_FILE, VALIDATION_FILE
from aiida_oodal.engine.labels import ENERGY, FORCES
from aiida_oodal.engine.mace.train.data import WORK_FOLDER
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.metrics import average, energy_errors, force_errors

_START_FILE, _REPLAY_FILE = 'start.model', 'replay.npz'


class TrainMaceCalculation(EngineCalculation):
    """Labelled sets and a seed -> one model; every set is an input, so that the model leads back to each label."""

    COMMAND = 'train-mace'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace(
            'training',
            valid_type=StructureSetData,
            dynamic=True,
            help='Labelled sets with REF_energy [eV], REF_forces [eV/angstrom], REF_stress [eV/angstrom^3] and, for '
            'clusters, force_mask; also isolated atoms: structures of one atom that are not periodic, or whose '
            'config_type is IsolatedAtom. config_weight and config_energy_weight, ... weigh a structure, as in MACE.',
        )
        spec.input(
            'validation',
            valid_type=StructureSetData,
            help='Labelled set that is not trained on and decides which model is kept; the same for all seeds.',
        )
        spec.input(
            'seed',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            validator=_validate_seed,
            help='Seed of the initial weights and of the order of the structures; models of an ensemble differ only in '
            'their seed.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=_validate_settings,
            help='Fields of `aiida_oodal.engine.mace.train.settings.MaceTrainSettings`: a protocol, E0s, ...',
        )
        spec.input(
            'start',
            valid_type=MaceModelData,
            required=False,
            help='Model to start from, of the last round or a foundation model; default: from scratch. Its shape is '
            'kept, whatever the settings say.',
        )
        spec.input(
            'replay',
            valid_type=StructureSetData,
            required=False,
            help='Labelled set from the training data of `start`, so that the new model does not forget them: MACE '
            'then fine-tunes with two heads, and at its own learning rate (1e-4) unless the overrides set '
            'force_mh_ft_lr.',
        )
        spec.input(
            'parent_folder',
            valid_type=orm.RemoteData,
            required=False,
            help='Remote folder of a job with the same inputs that was ended from outside, for example by its '
            'walltime; this job goes on from its checkpoint.',
        )
        spec.input(
            'monitors.progress',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({'entry_point': 'oodal.progress', 'minimum_poll_interval': 60}),
            help='Monitor that writes the progress of the training into `verdi process report` once a minute.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.train_mace'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate(inputs)

        spec.output('model', valid_type=MaceModelData, help='The model that was best on the validation set.')
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='Errors of the written model on training and validation sets, on all and on core atoms and by element '
            '(energy [meV/atom], force [meV/angstrom], stress [GPa]); updates, history of the validation '
            'loss, options of mace_run_train, versions, seconds.',
        )
        spec.exit_code(
            120,
            'ERROR_SCHEDULER_OUT_OF_WALLTIME',
            message='Slurm ended the job at its limit of {walltime}. Submit it again with its output `remote_folder` '
            'as `parent_folder`: it goes on from its checkpoint.',
            invalidates_cache=True,
        )
        spec.exit_code(
            400,
            'ERROR_INTERRUPTED',
            message='The job was ended from outside at update {updates} of {target}: {tail} Submit it again with its '
            'output `remote_folder` as `parent_folder`: it goes on from its checkpoint.',
            invalidates_cache=True,
        )
        spec.exit_code(
            410,
            'ERROR_DIVERGED',
            message='The training diverged: {message} (learning rate {learning_rate}). Lower `learning_rate`, and look '
            'for labels that cannot be true.',
        )
        spec.exit_code(
            411,
            'ERROR_NO_IMPROVEMENT',
            message='The training made the model no better: {message} (learning rate {learning_rate}, {updates} '
            'updates). Train longer, change `learning_rate`, or look for labels that contradict each other. The model '
            'is attached.',
        )
        spec.exit_code(
            420,
            'ERROR_OUT_OF_MEMORY',
            message='The memory of the device ({device}) is too small: {message} Lower `batch_size` or the override '
            '`valid_batch_size`, or train with precision float32.',
        )
        spec.exit_code(430, 'ERROR_MACE', message='mace_run_train stopped: {message} The end of its output: {tail}')

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the labelled sets, the settings and the model to start from."""
        inputs = self.inputs
        training = {f'training_{key}.npz': node.get_set() for key, node in sorted(inputs.training.items())}
        structures = training | {VALIDATION_FILE: inputs.validation.get_set()}
        if 'replay' in inputs:
            structures[_REPLAY_FILE] = inputs.replay.get_set()
        job = {
            'training': list(training),
            'validation': VALIDATION_FILE,
            'seed': inputs.seed.value,
            'settings': MaceTrainSettings.load(inputs.settings.get_dict()).to_values(),
            'start': _START_FILE if 'start' in inputs else None,
            'replay': _REPLAY_FILE if 'replay' in inputs else None,
            'threads': self.options.resources.get('num_cores_per_mpiproc', 1),
        }
        calc_info = self.write_job(
            folder,
            job,
            structures=structures,
            copies=[(inputs.start.uuid, MaceModelData.MODEL, _START_FILE)] if 'start' in inputs else [],
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[MaceModelData.MODEL],
        )
        if 'parent_folder' in inputs:
            parent = inputs.parent_folder
            earlier = f'{parent.get_remote_path()}/{WORK_FOLDER}'
            calc_info.remote_copy_list = [(parent.computer.uuid, earlier, WORK_FOLDER)]
        return calc_info


class TrainMaceParser(EngineParser):
    """Read the model, and the outcome of the training from the job's own report: the exit code of MACE says nothing."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the errors that the model makes, and the model if there is one."""
        results = self.attach_results()
        codes, outcome = self.exit_codes, results['outcome']
        words = {key: results.get(key) for key in ('message', 'learning_rate', 'device', 'updates')}
        if not results['complete']:
            return codes.ERROR_INTERRUPTED.format(
                updates=results['updates'], target=results['target_updates'], tail=self.tail()
            )
        if outcome in ('completed', 'no_improvement'):
            path = temporary / MaceModelData.MODEL
            require_file(path)
            self.out('model', MaceModelData(path))
        failures = {
            'completed': None,
            'no_improvement': codes.ERROR_NO_IMPROVEMENT,
            'diverged': codes.ERROR_DIVERGED,
            'out_of_memory': codes.ERROR_OUT_OF_MEMORY,
            'failed': codes.ERROR_MACE,
        }
        code = failures[outcome]
        return None if code is None else code.format(**words, tail=self.tail())


@calcfunction
def judge_ensemble(structures: StructureSetData, **latents: LatentsData) -> orm.Dict:
    """Return the errors of the mean over an ensemble on a labelled set, with the keys that `oodal.train_ace` uses.

    :param latents: of this set under every model, with energies and forces.
    """
    labelled = structures.get_set()
    nodes = [node for _, node in sorted(latents.items())]
    index = nodes[0].get_array('structure_index')
    energies = np.mean([node.get_array('energies') for node in nodes], axis=0)
    forces = np.mean([node.get_array('forces') for node in nodes], axis=0)
    frames = [labelled[int(row)] for row in index]
    with_energy = [row for row, atoms in enumerate(frames) if ENERGY in atoms.info]
    labels = np.concatenate([atoms.arrays.get(FORCES, np.full((len(atoms), 3), np.nan)) for atoms in frames])
    known = np.isfinite(labels).all(axis=1)
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in frames])
    sizes = [len(atoms) for atoms in frames]
    return orm.Dict(
        {
            'n_structures': len(frames),
            'n_atoms': sum(sizes),
            **energy_errors(
                energies[with_energy], [frames[i].info[ENERGY] for i in with_energy], [sizes[i] for i in with_energy]
            ),
            **force_errors(forces[known], labels[known]),
            'by_element': {
                str(symbol): force_errors(forces[known & (symbols == symbol)], labels[known & (symbols == symbol)])
                for symbol in np.unique(symbols)
            },
        }
    )


@calcfunction
def combine_results(reference: orm.Dict, **reports: orm.Dict) -> orm.Dict:
    """Return what is known of an ensemble that was trained.

    ``training`` and ``heldout`` have the mean errors of its models, ``seeds`` the report of each, ``reference`` that of
    the reference; ``parts``, with ``validation`` among them, the errors of the mean over the ensemble on labelled sets
    that were not trained on.

    :param reports: of the trainings by label, and of :func:`judge_ensemble` as ``judged_validation`` and
        ``judged_anchor_<key>``.
    """
    given = {name: node.get_dict() for name, node in sorted(reports.items())}
    seeds = {name: report for name, report in given.items() if not name.startswith('judged_')}
    parts = {}
    for name, report in given.items():
        if name.startswith('judged_'):
            role, _, key = name.removeprefix('judged_').partition('_')
            parts[key or role] = {'role': role, **report}
    return orm.Dict(
        {
            'training': average([report['training'] for report in seeds.values()]),
            'heldout': average([report['validation'] for report in seeds.values()]),
            'validation': parts.get('validation'),
            'parts': parts,
            'seeds': seeds,
            'reference': reference.get_dict(),
        }
    )


def _validate_seed(node: orm.Int, _: Any) -> str | None:
    # torch and numpy both take these
    return None if 0 <= node.value < 2**32 else f'seed = {node.value} must lie in 0 ... 2^32 - 1'


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return MaceTrainSettings.check(node.get_dict())


def _validate(inputs: Any) -> str | None:
    """Refuse what could not be trained; ports may be missing where this is exposed."""
    if 'settings' not in inputs or not inputs.get('training'):
        return 'give at least one labelled set in `training`' if 'training' in inputs else None
    settings = MaceTrainSettings.load(inputs['settings'].get_dict())
    if 'start' not in inputs:
        for name, asked in (
            ('replay', 'replay' in inputs),
            ("E0s = 'foundation'", settings.E0s == 'foundation'),
            (f'freeze = {settings.freeze!r}', settings.freeze != 'nothing'),
        ):
            if asked:
                return f'{name} needs a model to start from: give `start`'
    parent, computer = inputs.get('parent_folder'), inputs.get('metadata', {}).get('computer')
    if parent is not None and computer is not None and parent.computer.uuid != computer.uuid:
        return (
            f'parent_folder lies on {parent.computer.label}, the job runs on {computer.label}: take the same computer'
        )
    return _validate_data(inputs, settings)


def _validate_data(inputs: Any, settings: MaceTrainSettings) -> str | None:
    """Refuse sets without labels, elements that are not in the training sets, and elements without E0."""
    training = inputs['training']
    sets = {f'training.{key}': node for key, node in training.items()}
    sets |= {name: inputs[name] for name in ('validation', 'replay') if name in inputs}
    for name, node in sets.items():
        if not {'REF_energy', 'REF_forces'} & set(node.base.attributes.get('properties')):
            return f'{name} has neither REF_energy nor REF_forces: label it before training'
    elements = {symbol for node in training.values() for symbol in node.symbols}
    if 'validation' in inputs and (more := set(inputs['validation'].symbols) - elements):
        return f'validation has {", ".join(sorted(more))}, which the training sets lack'
    known = elements if settings.E0s == 'foundation' else set(settings.E0s)
    single = any((np.diff(node.get_array('offsets')) == 1).any() for node in training.values())
    if (missing := elements - known) and not single:
        return (
            f'no energy of an isolated atom of {", ".join(sorted(missing))}: add a structure of one atom to the '
            'training sets, or give the setting E0s ({element: eV}); an average over the training set is not taken'
        )
    return None
