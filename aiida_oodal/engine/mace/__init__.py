"""MACE models: latents of structures, forces and disagreement of an ensemble."""
