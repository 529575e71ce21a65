"""What joins a cohort's files, its store and its pipeline; workflows and the command line ask it."""
