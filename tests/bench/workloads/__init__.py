"""One workload per module, each under the name WORKLOAD."""
