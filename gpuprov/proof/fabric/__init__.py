"""Several hosts at once: collectives and data-parallel training over the fabric, started together.

One host has the hub (`hub`), a small server on the fleet's interface. Every host's member (`member`) joins it,
forks one process per device for each round (`rank`: `collectives`, `ddp`), and reports. The hub lets a round begin
when every one of its ranks is ready, releases all of them when one fails or the deadline passes, and follows the
`course`: pairings, a doubling ladder, training. `localise` names the slow or broken host or link; `verdicts` makes
checks of it. Only `rank`, `collectives` and `ddp` import torch.

    python -m gpuprov.proof.fabric --json < plan.json       # docs/fabric.md has the plan's fields
"""
