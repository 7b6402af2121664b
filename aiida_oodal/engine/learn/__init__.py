"""Reference labels, ACE fit and active set."""
