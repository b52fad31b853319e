"""Runs as one HTML file that needs nothing else: `bench report`.

records -> groups of comparable rows (`groups`, `klom`), pictures (`pictures`), commands (`reproduce`) -> `page`.
"""
