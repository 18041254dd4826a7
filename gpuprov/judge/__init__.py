"""Comparisons of measurements: with the model's specification, the neighbours, the fleet, the GPU's own past.

A check's own verdict is made on the host; here it is only ever made worse. `specs` has the floors, `compare` the
four numbers, `votes` what has to be equal bit by bit, `run` judges a whole run (docs/judge.md).
"""
