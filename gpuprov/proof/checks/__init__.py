"""What can be told without load: versions, devices, counts."""
