"""Jobs and steps of screening: fit what an ensemble knows, score sets against it, take candidates."""
