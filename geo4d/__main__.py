"""``python -m geo4d`` is the command ``geo4d``; also what torchrun starts several of."""

from geo4d.apps.cli import command

if __name__ == "__main__":
    command()
