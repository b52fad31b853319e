"""The first thing to run: `uv run demo.py --method noisy_descent`. The same as `bench klom run`."""

import sys

from unlearn_bench.cli import main

if __name__ == "__main__":
    main(["klom", "run", *sys.argv[1:]])
