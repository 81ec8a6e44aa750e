"""Lets `python -m sdft` and `accelerate launch -m sdft` run the same command as `sdft`."""

from sdft.cli.app import main

if __name__ == "__main__":
    main()
