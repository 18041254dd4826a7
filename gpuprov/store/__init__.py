"""Memory: what runs left behind on the admin's machine."""
