"""Benches: figures that anyone can make again. Timings are printed here and never asserted in a test."""
