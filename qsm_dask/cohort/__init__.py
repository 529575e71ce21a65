"""What can be told of a cohort from its store and its pipeline together; workflows and the command line ask it."""
