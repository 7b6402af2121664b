"""Labels by ASE calculators and by programs of users, and labels that were computed elsewhere."""
