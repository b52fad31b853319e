"""KLoM: is an unlearned classifier distributed like one that was never trained on the forget set?

Start at `klom_bench.klom.klom` (the metric), `klom_bench.experiment.run` (a whole experiment) or
`klom_bench.methods` (the algorithms). EasyDUB's own names live in `klom_bench.data` and `klom_bench.eval`.
"""
