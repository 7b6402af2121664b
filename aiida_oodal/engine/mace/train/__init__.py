"""Train one MACE model: its settings, the data as mace-torch reads them, the run, and what came of it."""
