"""Steps of alerts: what is decided, what is sent, what is heard, and the intake of what should be told."""
