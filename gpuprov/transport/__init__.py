"""Ways in: SSH and the local machine, behind two small protocols (base.py).

Ways (ways.py) is opened once per run and shared by all threads; Ways.connect turns a Target
into a Connection. paramiko is imported only in this room, and only when something connects.
"""
