"""lptctl: the command line of lpt-service. `lptctl --help` tells what it can do; `lptctl.cli` is where it begins."""
