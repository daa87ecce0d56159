"""The HTTP surface: one router for each capability."""
