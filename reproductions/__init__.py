"""The papers' tables, a script each; ``python -m reproductions list`` names them."""
