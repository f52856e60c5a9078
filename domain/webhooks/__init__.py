"""The rules of webhooks: what may be subscribed to, where it may be sent, when it is tried again."""
