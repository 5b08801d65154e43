"""What operators look at: nodes, instances, queues, deployments, metrics. It reads the store; no node calls it."""
