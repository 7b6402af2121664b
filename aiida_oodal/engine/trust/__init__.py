"""Whether a new potential is worse than the one before."""
