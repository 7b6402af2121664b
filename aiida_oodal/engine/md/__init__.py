"""LAMMPS with gamma: input script, driver, log and dump readers, verdict on a run."""

#: Exit status of a run that halted on gamma, by the engine and by LAMMPS itself.
EXIT_HALT = 3
