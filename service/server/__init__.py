"""Sockets to ASGI: the worker processes, the HTTP/1.1 protocol, and what holds back overload."""
