"""Operations of lissnas: servers and workers, deployments, containers, a runbook."""
