"""Prometheus and Grafana: what they are started with, and the dashboard."""
