"""The command line: the only place that knows that a terminal exists."""
