"""Decisions: who owns the port, who hears an interrupt, what a request does.

Plain synchronous Python without socket, file, clock or task: time is an argument (CLOCK_MONOTONIC in ns), the port is
handed in. A step decides at once and leaves behind *effects*, which the server carries out after it.
"""
