"""The tasks, one a file; each file has one function that makes the environment."""
