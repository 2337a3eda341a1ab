"""The SLURM launcher: submissions, the queue, cluster profiles, the copy of the code that jobs run."""
