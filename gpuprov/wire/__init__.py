"""The contract between controller and hosts: names, frames, plans, events.

Standard library only, no I/O, runs on Python 3.8. Values on the wire are JSON objects whose
shapes are declared here as TypedDicts: they cost a host nothing at run time.
"""

#: Changes whenever an old agent could misread a new controller or the other way round.
PROTOCOL = 1
