"""Control: regulators, planners and controllers that act on any map with inputs."""
