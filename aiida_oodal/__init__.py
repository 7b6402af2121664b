"""Self-healing machine-learned potentials on AiiDA: find where a potential extrapolates, label it, retrain."""

__version__ = '0.1.0'
