"""What a campaign computes to find out whether its walkers can be believed."""
