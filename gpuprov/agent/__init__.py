"""Runs on hosts: standard library only, Python 3.8 and newer."""
