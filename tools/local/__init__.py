"""The servers that a laptop or a test run needs, and the supervisor that keeps them up."""
