"""Clusters: geometry, fidelity, choosing among candidates."""
