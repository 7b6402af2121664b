"""Picking rows of a matrix: MaxVol, farthest points, K-means."""
