"""Executing units on one machine: dispatch, memory, lanes, engine, actors."""
