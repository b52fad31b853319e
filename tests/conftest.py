"""What pytest leaves alone here."""

collect_ignore = [
    "plugin_example"
]  # its tests need it installed: test_plugin_example.py does that and runs them
