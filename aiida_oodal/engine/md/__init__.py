"""LAMMPS under watch: input script, driver, log and dump readers, verdict on a run."""
