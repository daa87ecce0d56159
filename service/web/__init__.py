"""The HTTP pieces that endpoints share: bodies, errors, access, logs, metrics."""
