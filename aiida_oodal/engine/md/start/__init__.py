"""What a run starts from in LAMMPS's terms, and the way back: types, box, held atoms, data file."""
