"""``python -m mobtk``, as torchrun wants it."""

from mobtk.cli import main

if __name__ == "__main__":
    main()
