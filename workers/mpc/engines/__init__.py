"""Engines: the same circuits in the clear (`plain`) and on replicated shares (`ring`)."""
