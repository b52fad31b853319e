"""Runs to and from the Hugging Face Hub, and the check of what others send in.

`push` gathers files and `cards` describes them; `hub` is the only module that talks to the Hub and knows its errors.
"""
