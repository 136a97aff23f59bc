"""SuperDAO and SubDAOs: parameters, soul-bound points, epochs, founding."""
