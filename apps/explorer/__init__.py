"""The pages: one module per area; views read by selectors, write by services, own no models."""
