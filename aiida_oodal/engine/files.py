"""The name of every file in the folder of a job, once: who writes a file and who reads it take its name from here."""

# Every job of the engine.
JOB_FILE = 'job.json'
#: Written by every command that has numbers to report.
RESULTS_FILE = 'results.json'
#: Written when the input was at fault; its text becomes the exit message of the calculation.
ERROR_FILE = 'error.json'

# Structures, labels, scores.
STRUCTURES_FILE = 'structures.npz'
VALIDATION_FILE = 'validation.npz'
LABELS_FILE = 'labels.npz'
CLUSTERS_FILE = 'clusters.npz'
KNOWN_FILE = 'known.npz'
GRADED_FILE = 'graded.npz'
#: Structures with the errors of a potential; the first and the last structures of walkers.
JUDGED_FILE = 'judged.npz'
#: Gamma and errors of the atoms of a validation set.
JUDGED_VALIDATION_FILE = 'judged_validation.npz'
STARTS_FILE, ENDS_FILE = 'starts.npz', 'ends.npz'
#: The fitted reference of an ensemble, as one file and as a folder with a file for each array.
REFERENCE_FILE = 'reference.npz'
REFERENCE_FOLDER = 'reference'
#: Scores: a folder for each set, with a file for each array.
SCORES_FOLDER = 'scores'
#: Labels of structures, beside their offsets.
LABEL_FORCES_FILE = 'REF_forces.npy'
MASK_FILE = 'force_mask.npy'

# Latents of a set of structures: ``latents_<label>.npy`` and others of each model, and what all models share.
NUMBERS_FILE = 'numbers.npy'
OFFSETS_FILE = 'offsets.npy'
STRUCTURE_INDEX_FILE = 'structure_index.npy'
#: What tells whether two structures are the same, and which are one atom without neighbours.
FINGERPRINTS_FILE = 'fingerprints.npy'
ISOLATED_FILE = 'isolated.npy'
#: Structures that could not be evaluated, one a line while the job runs; in the end they are in :data:`RESULTS_FILE`.
FAILURES_FILE = 'failures.jsonl'

# Potentials.
BASIS_FILE = 'potential.yaml'
#: The B-basis of the potential that was learned before.
LEARNED_FILE = 'learned.yaml'
TABULATED_FILE = 'potential.yace'
ACTIVE_SET_FILE = 'active_set.asi'
MODEL_FILE = 'mace.model'

# One MD run of LAMMPS.
INPUT_FILE = 'md.in'
STRUCTURE_FILE = 'structure.data'
LOG_FILE = 'log.lammps'
SNAPSHOTS_FILE = 'snapshots.dump'
FINAL_FILE = 'final.dump'
FINAL_DATA_FILE = 'final.data'
FINAL_RESTART_FILE = 'final.restart'
#: The restart file that a run goes on from.
INITIAL_RESTART_FILE = 'initial.restart'
#: Written in turn, so that one of them is whole whenever the run dies.
PERIODIC_RESTART_FILES = ('periodic.restart.1', 'periodic.restart.2')
