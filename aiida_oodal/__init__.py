"""Self-healing machine-learned potentials on AiiDA: find where a potential is ignorant, label it, retrain."""

__version__ = '0.1.0'
