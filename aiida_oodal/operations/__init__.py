"""Setting up and repairing an installation: profile, computers, codes, daemon, launches. No click, no printing."""
