"""The figures that the README quotes: each beside what it is compared with, in one run."""
