"""`python -m cpsae` is `cpsae` (torchrun starts it so)."""

from cpsae.cli.main import main

if __name__ == "__main__":
    main()
