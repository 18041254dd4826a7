"""Which driver, CUDA, cuDNN, NCCL, fabric manager, Python and torch fit a host: a pure resolver over dated tables.

load() -> Tables                              the tables that came with gpuprov
want_from(mapping, problems) -> Want          `gpuprov_stack`, checked
host_from_facts(facts, tables) -> HostFacts   an agent's facts with a survey
resolve(want, host, tables) -> Stack | Refusal
explain(answer) -> str                        the whole reasoning
"""

from gpuprov.stack.explain import explain
from gpuprov.stack.hosts import from_facts as host_from_facts
from gpuprov.stack.hosts import from_short as host_from_short
from gpuprov.stack.model import Alternative, HostFacts, Refusal, Stack, Want
from gpuprov.stack.overlays import overlaid
from gpuprov.stack.resolve import resolve
from gpuprov.stack.tables import Tables, load
from gpuprov.stack.wants import from_mapping as want_from

__all__ = [
    "Alternative",
    "HostFacts",
    "Refusal",
    "Stack",
    "Tables",
    "Want",
    "explain",
    "host_from_facts",
    "host_from_short",
    "load",
    "overlaid",
    "resolve",
    "want_from",
]
