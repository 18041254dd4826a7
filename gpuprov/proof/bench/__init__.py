"""Measurements under load: arithmetic, memory, buses, collectives. Each is checked for right results, too."""
