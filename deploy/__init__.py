"""Ways to run gradserve on more than one machine: Ray Serve, Kubernetes, a proxy, monitoring."""
