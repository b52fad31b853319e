"""The shared interface of Unlearn Bench: nouns, protocols, registry and records.

Import what you need from its module (`from unlearn_core.registry import load`); importing the package
itself costs nothing. Nothing here knows torch, numpy or any model.

=========== ===========================================================================
module      what it holds
=========== ===========================================================================
concept     `Concept`: what to forget, what it should become, which neighbours must survive
prompts     `Prompt`, `PromptSet`: rows with their own seeds; CSV, JSONL, Parquet, Hub ids
minors      the always-on guard: no sexual prompt that mentions a minor
samples     `Sample`, `SampleSet`: an append-only folder of images, resumable
score       `Score`: a value with direction, interval and the samples it could not judge
record      `RunRecord`: one JSON file a run; reports and leaderboards read nothing else
protocols   `Technique`, `Method`, `Attack`, `Metric`, `Detector`, `TextToImage`
registry    entry points: `names`, `load`, `describe`
spec        settings from mappings, canonical JSON, fingerprints
seeds       `derive`: one root seed, a named stream for every use
tables      rows of CSV, TSV, JSONL and Parquet files, each with its line
hub         tables of Hugging Face data sets
environment where a number was computed: versions, commit, machine
atomic      files that are either whole or not there
errors      `UnlearnError` and its children: one clear message, exit code 2
=========== ===========================================================================
"""
