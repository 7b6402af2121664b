"""Potentials that are linear in their coefficients, whatever basis makes the rows: fit, active set, errors."""
