"""Text to values: YAML with positions, inventories, host patterns, playbooks and roles."""
