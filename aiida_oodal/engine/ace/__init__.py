"""Linear ACE potentials: basis, fit, active set, forces, extrapolation grade."""
