"""What users do, one `run` a file; here, and only here, the rooms are joined."""
