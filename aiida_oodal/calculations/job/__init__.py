"""What all jobs share: job file, options, scheduler errors, progress."""
