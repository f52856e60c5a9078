"""The steps: each one commit or one call outside."""
