"""Jinja2 as both ends render it: strict, sandboxed, lazy, with Ansible's filters and tests."""
