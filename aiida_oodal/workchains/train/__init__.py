"""Trainers: WorkChains that train a potential or an ensemble on labels."""
