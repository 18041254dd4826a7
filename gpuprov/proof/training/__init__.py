"""Small trainings whose every number is known beforehand.

`data` makes data, start values and batch order; `replay` trains in float64 by hand-derived
formulae, without torch; `device` trains with torch; `judge` compares; `linear` and `mlp` are
the two proofs. Only `device`, `linear` and `mlp` import torch.
"""
