"""The console's routes: who is let in, what its page is made of, and what it is told."""
