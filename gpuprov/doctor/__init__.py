"""From symptoms to their cause and the command that fixes it: a table as data, and what matches it. Pure.

Text (a pasted line, a log) is matched by patterns; a host by conditions over its facts and by the same
patterns over the evidence that its agent collected. What could not be told is said, never counted as fine.
"""
