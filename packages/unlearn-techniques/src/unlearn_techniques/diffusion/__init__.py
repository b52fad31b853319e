"""The model that techniques work on: its parts, its one sampling loop, and the maths they share."""
