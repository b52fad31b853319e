"""`bench genmu`: the three strategies of the Genμ challenge, from a technique to a submission and its score."""
