"""The parts of a campaign that decide: whether walkers and potentials are believed, and whether a round follows."""
