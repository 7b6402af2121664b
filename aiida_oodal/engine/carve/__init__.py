"""Clusters: geometry, fidelity, choosing among candidates."""

from .cluster import extract_cluster, extract_clusters

__all__ = ('extract_cluster', 'extract_clusters')
