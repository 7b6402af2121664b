"""Labellers: WorkChains that take structures out of the DFT queue and bring their labels back."""
