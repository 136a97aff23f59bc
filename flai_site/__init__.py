"""The site: settings, urls, processes. Everything that knows every app lives here."""
