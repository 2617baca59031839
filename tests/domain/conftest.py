"""Hypothesis without a deadline: a busy machine is no error of the rule under test."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
