"""What runs lissnas for real: servers and workers, deployments, containers, a runbook."""
