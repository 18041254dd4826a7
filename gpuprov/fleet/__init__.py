"""The run over many hosts: gate, plans, events, hosts that went away and came back."""
