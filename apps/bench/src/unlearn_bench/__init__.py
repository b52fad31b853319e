"""The `bench` command: parses, composes the packages, prints. No arithmetic lives here."""
