"""Write the golden files anew: `make golden`, or `python -m tests.golden`.  Review the diff."""

from tests.golden.files import FILES, write

if __name__ == "__main__":
    for name in FILES:
        print(f"{name}: {'changed' if write(name) else 'as before'}")
