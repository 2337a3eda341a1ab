"""What concerns SLURM alone: submitting, what was submitted, the queue, cluster profiles, the code that jobs run."""
