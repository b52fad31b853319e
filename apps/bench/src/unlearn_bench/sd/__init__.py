"""`bench sd`: from a configuration to a record, a table and a picture."""
