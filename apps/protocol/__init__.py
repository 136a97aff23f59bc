"""Pure: the equations, one function each. No Django, no clock, no randomness, no I/O."""
