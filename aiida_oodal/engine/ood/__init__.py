"""Out-of-distribution scores: latents, alignment, scores, candidates."""
