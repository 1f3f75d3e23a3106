"""What the gateway costs, measured against a bare baseline in the same run: ``python -m tests.bench``."""
