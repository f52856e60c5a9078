"""The stories: order, waits, timers, updates."""
