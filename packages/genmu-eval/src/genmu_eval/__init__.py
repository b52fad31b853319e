"""The Genμ challenge: ERR with intervals, the weight tie-break, prompts, submissions, rankings."""
