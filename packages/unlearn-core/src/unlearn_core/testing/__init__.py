"""What tests of ours and of plugins share; nothing here is needed at run time."""
