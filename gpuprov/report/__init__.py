"""Values to something a person reads: live view, recap, HTML, JSON. Renderers only read values."""
