"""What NVML says of GPUs: calls.py names what is asked, reading.py asks, checks judge what came (pure)."""
