"""What is fitted to a reference set: alignment, distances, densities, zeros of energy."""
