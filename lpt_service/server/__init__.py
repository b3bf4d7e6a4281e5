"""The daemon's I/O: sockets, tasks, signals. The only floor that uses trio."""
