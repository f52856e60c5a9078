"""Who offers what ``activities/ports.py`` asks for. Imported by the composition root alone."""
