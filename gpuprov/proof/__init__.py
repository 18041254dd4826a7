"""The proof: does this host train? Runs in the provisioned environment, or on the spot.

    python -m gpuprov.proof [linear] [mlp] [versions] [all] [--json] [--expect-gpus N] ...

`__main__` is the command line, `supervisor` runs the measuring in child processes with a
deadline, `worker` is what such a child does; `checks/` look at the software and the hardware,
`training/` trains and judges. Standard library, torch, and pynvml when it is there.
"""
