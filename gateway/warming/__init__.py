"""Models kept warm: hours.py says when, schedules.py sees to it."""
