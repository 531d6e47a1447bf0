"""What holds for every test."""

from hypothesis import settings

# The machine may be busy with something else: how long an example took says nothing about the code.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")
