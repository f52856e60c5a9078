"""The rules of margin: health, levels, events and what is recommended."""
